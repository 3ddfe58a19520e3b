//! The `log` service: lets every connection and flow of datagrams pass, and reports it when it has ended.

use std::{io, sync::Arc};

use waylay::{Inbound, RedirectService, ServeError, datagrams::DatagramService};
use waylay_relay::{Direction, Observer, Verdict};

use crate::{
    account::{Account, carry_on},
    flows::{self, Judge},
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
    /// [`ServeError`] if a listener, or a socket for datagrams, fails.
    pub async fn serve(
        self,
        service: RedirectService,
        datagrams: Option<DatagramService>,
    ) -> Result<(), ServeError> {
        let log = Arc::new(self);
        let flows = datagrams.map(|datagrams| tokio::spawn(flows::serve(Arc::clone(&log), datagrams)));
        service.serve(move |inbound| Arc::clone(&log).handle(inbound)).await?;
        match flows {
            Some(flows) => flows.await.map_err(io::Error::from).flatten().map_err(ServeError::Listener),
            None => Ok(()),
        }
    }

    async fn handle(self: Arc<Self>, inbound: Inbound) {
        let account = Account::open(&self.name, &inbound);
        let mut look = Look(Sniffer::new());
        let end = carry_on(inbound, self.forgets, &mut look).await;
        account.close(&look.0, end).await;
    }
}

impl Judge for Log {
    type Notes = ();

    fn name(&self) -> &str {
        &self.name
    }

    fn forgets(&self) -> bool {
        self.forgets
    }

    fn judge(&self, (): &mut (), _: Direction, _: &[u8]) -> Verdict {
        Verdict::Forward
    }

    fn found(&self, (): &()) -> Option<(String, Direction)> {
        None
    }
}

/// Lets everything pass, and looks at it until there is nothing more to learn.
struct Look(Sniffer);

impl Observer for Look {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        self.0.observe(direction, bytes);
        Verdict::Forward
    }

    fn looks(&self, direction: Direction) -> bool {
        self.0.looks(direction)
    }
}
