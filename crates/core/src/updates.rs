//! What is put in force next, where filters change one by one and the whole is compiled anew behind them.
//!
//! ```text
//! change ──▶ tables amended by it ──▶ installed           (milliseconds)
//!    └─▶ Renewal ──▶ compiled, elsewhere (half a second) ──▶ amended by what has changed meanwhile ──▶ installed
//! ```
//!
//! An owner of tables asks this and nothing else, so that what is in force is always one policy: that before a change or that after it,
//! and none that a change has been lost from.

use crate::change::Change;
use crate::policy::{LimitError, PolicyError};
use crate::tables::Tables;

/// The tables in force, and those that are being made.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    in_force: Tables,
    renewals: u64,
    /// The renewal under way, and what has changed since it began.
    renewing: Option<(u64, Vec<Change>)>,
}

/// Tables that are to be compiled anew, wherever there is time for it.
#[derive(Clone, Debug)]
pub struct Renewal {
    number: u64,
    tables: Tables,
}

/// Tables that have been.
#[derive(Clone, Debug)]
pub struct Renewed {
    number: u64,
    tables: Result<Tables, LimitError>,
}

/// Why something else was not put in force: what was in force still is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError<E> {
    /// It cannot be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The engine has refused it.
    #[error(transparent)]
    Install(E),
}

impl Renewal {
    /// Compiles them: half a second for 100,000 filters.
    #[must_use]
    pub fn compile(self) -> Renewed {
        Renewed { number: self.number, tables: self.tables.renewed() }
    }
}

impl Updates {
    /// With these in force.
    #[must_use]
    pub fn new(in_force: Tables) -> Self {
        Self { in_force, renewals: 0, renewing: None }
    }

    /// The tables in force.
    #[must_use]
    pub const fn in_force(&self) -> &Tables {
        &self.in_force
    }

    /// Installs what a change of filters comes to.
    ///
    /// # Errors
    /// [`UpdateError`]; then nothing has changed.
    pub fn change<E>(
        &mut self,
        change: Change,
        install: impl FnOnce(&Tables) -> Result<(), E>,
    ) -> Result<(), UpdateError<E>> {
        let next = self.in_force.change(&change)?;
        install(&next).map_err(UpdateError::Install)?;
        match &mut self.renewing {
            // What it would come to is there already.
            Some(_) if !next.is_amended() => self.renewing = None,
            Some((_, since)) => since.push(change),
            None => {}
        }
        self.in_force = next;
        Ok(())
    }

    /// Installs other tables altogether.
    ///
    /// # Errors
    /// What `install` says; then nothing has changed.
    pub fn replace<E>(
        &mut self,
        next: Tables,
        install: impl FnOnce(&Tables) -> Result<(), E>,
    ) -> Result<(), E> {
        install(&next)?;
        (self.in_force, self.renewing) = (next, None);
        Ok(())
    }

    /// What is to be compiled anew, if anything is and that is not under way.
    pub fn begin_renewal(&mut self) -> Option<Renewal> {
        if !self.in_force.is_amended() || self.renewing.is_some() {
            return None;
        }
        self.renewals += 1;
        self.renewing = Some((self.renewals, Vec::new()));
        Some(Renewal { number: self.renewals, tables: self.in_force.clone() })
    }

    /// Installs what has been compiled, with what has changed since it was begun. Nothing is done where others have been installed
    /// altogether meanwhile.
    ///
    /// # Errors
    /// [`UpdateError`]; then nothing has changed, and the renewal can begin again.
    pub fn end_renewal<E>(
        &mut self,
        renewed: Renewed,
        install: impl FnOnce(&Tables) -> Result<(), E>,
    ) -> Result<(), UpdateError<E>> {
        let Some((_, since)) = self.renewing.take_if(|(number, _)| *number == renewed.number) else {
            return Ok(());
        };
        let mut next = renewed.tables.map_err(PolicyError::from)?;
        for change in &since {
            next = next.change(change)?;
        }
        install(&next).map_err(UpdateError::Install)?;
        self.in_force = next;
        Ok(())
    }
}
