//! The `log` service: lets every connection pass and reports it when it has ended.

use waylay::{Inbound, RedirectService, ServeError};
use waylay_relay::{Direction, Verdict};

use crate::{
    account::{Account, carry_on},
    sniff::Sniffer,
};

/// How this instance of the service behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its name in reports and chains.
    pub name: String,
    /// Whether it dials without its redirect records, to show what happens then.
    pub forgets: bool,
}

impl Log {
    /// Serves until told to stop by the service's shutdown handle, then until
    /// the last connection has ended.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if a listener fails.
    pub fn serve(self, service: RedirectService) -> Result<(), ServeError> {
        service.serve(move |inbound| self.handle(inbound))?;
        Ok(())
    }

    fn handle(&self, inbound: Inbound) {
        let account = Account::open(&self.name, &inbound);
        let mut sniffer = Sniffer::new();
        let mut look = |direction: Direction, bytes: &[u8]| {
            if !sniffer.done() {
                sniffer.observe(direction, bytes);
            }
            Verdict::Forward
        };
        let end = carry_on(inbound, self.forgets, &mut look);
        account.close(&sniffer, end);
    }
}
