//! A built-in service in its own process.

use std::{
    error::Error,
    io::{self, Read},
    process::ExitCode,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use waylay::RedirectService;
use waylay_inspect::{
    log::Log,
    scan::{Patterns, Scan},
};

use crate::{args::ServeArgs, spec::Builtin};

pub(crate) fn serve(args: ServeArgs) -> Result<ExitCode, Box<dyn Error>> {
    // With a thread for each processor: the connections of a service have nothing to do with each other. What
    // the kernel reports of a thread has its name.
    let runtime = Builder::new_multi_thread().thread_name(&args.name).enable_all().build()?;
    runtime.block_on(run(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: ServeArgs) -> Result<(), Box<dyn Error>> {
    let service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            shutdown.trigger();
        }
    });
    match args.builtin {
        Builtin::Log => Log { name: args.name, forgets: args.forget }.serve(service).await?,
        Builtin::Scan => Scan::new(args.name, args.forget, patterns()?)?.serve(service).await?,
    }
    Ok(())
}

/// `waylay run` hands them over on standard input: as arguments everybody could read them in ps(1).
fn patterns() -> Result<Patterns, Box<dyn Error>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let patterns = Patterns::decode(&bytes)?;
    Ok(patterns)
}
