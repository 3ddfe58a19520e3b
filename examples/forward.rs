//! A redirect service: it says who connects where, and lets everything pass.
//!
//! `waylay run --through exec:/path/to/forward -- curl http://example.test/`
#![expect(clippy::print_stdout, reason = "what a service has to say goes to standard output")]

use std::{error::Error, thread};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use waylay::{Inbound, RedirectService};
use waylay_relay::Transfer;

fn main() -> Result<(), Box<dyn Error>> {
    let service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || signals.forever().for_each(|_| shutdown.trigger()));

    service.serve(|inbound| {
        let leg = format!("{} -> {}", inbound.context().application(), inbound.original_destination());
        match forward(inbound) {
            Ok(Transfer { to_destination: up, to_application: down }) => {
                println!("{leg}: {up} B up, {down} B down");
            }
            Err(error) => println!("{leg}: {error}"),
        }
    })?;
    Ok(())
}

fn forward(inbound: Inbound) -> Result<Transfer, Box<dyn Error>> {
    let outbound = inbound.connect()?; // Sets the redirect records, then dials.
    let transfer = waylay_relay::relay(inbound.into_stream(), outbound.into_stream(), &mut ())?;
    Ok(transfer)
}
