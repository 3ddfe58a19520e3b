//! A redirect service: it says who connects where, and lets everything pass.
//!
//! `waylay run --through exec:/path/to/forward -- curl http://example.test/`
#![expect(clippy::print_stdout, reason = "what a service has to say goes to standard output")]

use std::error::Error;

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use waylay::{Inbound, RedirectService};
use waylay_relay::Transfer;

fn main() -> Result<(), Box<dyn Error>> {
    Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        shutdown.trigger();
    });
    service.serve(report).await?;
    Ok(())
}

async fn report(inbound: Inbound) {
    let leg = format!("{} -> {}", inbound.context().application(), inbound.original_destination());
    match forward(inbound).await {
        Ok(Transfer { to_destination: up, to_application: down }) => {
            println!("{leg}: {up} B up, {down} B down");
        }
        Err(error) => println!("{leg}: {}", in_full(error.as_ref())),
    }
}

async fn forward(inbound: Inbound) -> Result<Transfer, Box<dyn Error>> {
    let outbound = inbound.connect().await?; // Sets the redirect records, then dials.
    let transfer = waylay_relay::relay(inbound, outbound).await?;
    Ok(transfer)
}

/// An error with its reasons, down to what the kernel said.
fn in_full(error: &dyn Error) -> String {
    match error.source() {
        Some(reason) => format!("{error}: {}", in_full(reason)),
        None => error.to_string(),
    }
}
