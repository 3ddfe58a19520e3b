//! The `scan` service: ends a connection, or a flow of datagrams, in which a pattern passes, in either direction.
//!
//! The bytes that would complete the pattern are not forwarded, and both peers are reset: neither has the
//! whole of it, and neither takes what it has for complete. What came before those bytes has passed. The
//! service sees what is sent: nothing inside of TLS, and nothing that is compressed. Of datagrams each is looked at
//! by itself: one that has a pattern is not forwarded, nor are those of its flow after it, and nobody is told.

mod matcher;
mod patterns;

use std::{io, sync::Arc};

use waylay::{Inbound, RedirectService, ServeError, datagrams::DatagramService};
use waylay_relay::{Direction, Observer, Verdict};

pub use matcher::{Matcher, MatcherError, Position};
pub use patterns::{PatternError, Patterns};

use crate::{
    account::{Account, carry_on},
    flows::{self, Judge},
    sniff::Sniffer,
};

/// An instance of the service.
#[derive(Clone, Debug)]
pub struct Scan {
    name: String,
    forgets: bool,
    patterns: Patterns,
    matcher: Matcher,
}

impl Scan {
    /// One of that name, in reports and chains, that looks for those patterns. If it `forgets`, it dials
    /// without its redirect records, to show what happens then.
    ///
    /// # Errors
    ///
    /// [`MatcherError`].
    pub fn new(name: String, forgets: bool, patterns: Patterns) -> Result<Self, MatcherError> {
        let matcher = Matcher::new(&patterns)?;
        Ok(Self { name, forgets, patterns, matcher })
    }

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
        let scan = Arc::new(self);
        let flows = datagrams.map(|datagrams| tokio::spawn(flows::serve(Arc::clone(&scan), datagrams)));
        service.serve(move |inbound| Arc::clone(&scan).handle(inbound)).await?;
        match flows {
            Some(flows) => flows.await.map_err(io::Error::from).flatten().map_err(ServeError::Listener),
            None => Ok(()),
        }
    }

    async fn handle(self: Arc<Self>, inbound: Inbound) {
        let mut account = Account::open(&self.name, &inbound);
        let mut look = Look::new(&self.matcher);
        let end = carry_on(inbound, self.forgets, &mut look).await;
        if let Some((pattern, direction)) = look.found {
            account.report().pattern = Some(self.patterns.name(pattern));
            account.report().direction = Some(direction);
        }
        account.close(&look.sniffer, end).await;
    }
}

impl Judge for Scan {
    type Notes = Option<(usize, Direction)>;

    fn name(&self) -> &str {
        &self.name
    }

    fn forgets(&self) -> bool {
        self.forgets
    }

    fn judge(&self, found: &mut Self::Notes, direction: Direction, datagram: &[u8]) -> Verdict {
        match self.matcher.feed(&mut self.matcher.start(), datagram) {
            Some(pattern) => {
                *found = Some((pattern, direction));
                Verdict::Stop
            }
            None => Verdict::Forward,
        }
    }

    fn found(&self, found: &Self::Notes) -> Option<(String, Direction)> {
        found.map(|(pattern, direction)| (self.patterns.name(pattern), direction))
    }
}

/// One connection, looked at in both directions.
struct Look<'m> {
    matcher: &'m Matcher,
    to_destination: Position,
    to_application: Position,
    sniffer: Sniffer,
    found: Option<(usize, Direction)>,
}

impl<'m> Look<'m> {
    fn new(matcher: &'m Matcher) -> Self {
        let start = matcher.start();
        Self { matcher, to_destination: start, to_application: start, sniffer: Sniffer::new(), found: None }
    }
}

impl Observer for Look<'_> {
    fn bytes(&mut self, direction: Direction, bytes: &[u8]) -> Verdict {
        if !self.sniffer.done() {
            self.sniffer.observe(direction, bytes);
        }
        let position = match direction {
            Direction::ToDestination => &mut self.to_destination,
            Direction::ToApplication => &mut self.to_application,
        };
        match self.matcher.feed(position, bytes) {
            Some(pattern) => {
                self.found = Some((pattern, direction));
                Verdict::Stop
            }
            None => Verdict::Forward,
        }
    }
}
