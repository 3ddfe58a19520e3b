//! A redirect service for datagrams: passes each on, and tells what each flow had.
#![expect(clippy::print_stdout, reason = "what a service has to say goes to standard output")]

use std::error::Error;

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use waylay::datagrams::{DatagramService, FlowEvent, InboundFlow};

fn main() -> Result<(), Box<dyn Error>> {
    Runtime::new()?.block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let service = DatagramService::from_env()?;
    let shutdown = service.shutdown();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        shutdown.trigger();
    });
    service.serve(report).await?;
    Ok(())
}

async fn report(flow: InboundFlow) {
    let leg = format!("{} -> {}", flow.context().application(), flow.original_destination());
    match forward(flow).await {
        Ok([up, down]) => println!("{leg}: {up} up, {down} down"),
        Err(error) => println!("{leg}: {error}"),
    }
}

/// How many datagrams there were, each way.
async fn forward(mut flow: InboundFlow) -> Result<[u32; 2], Box<dyn Error + Send + Sync>> {
    let mut outbound = flow.connect()?; // Has the redirect records.
    let (mut up, mut down) = (0, 0);
    while let Some(event) = flow.next(&mut outbound).await {
        // One that cannot be passed on is lost, as datagrams may be.
        match event {
            FlowEvent::Datagram(datagram) => up += u32::from(outbound.send(&datagram).is_ok()),
            FlowEvent::Answer { datagram, from } => {
                down += u32::from(flow.reply_from(from, &datagram).is_ok());
            }
            FlowEvent::Unreachable(lost) => flow.report_error(&lost.error, lost.info)?,
        }
    }
    Ok([up, down])
}
