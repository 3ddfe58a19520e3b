//! A built-in service in its own process.

use std::{
    error::Error,
    ffi::CString,
    io::{self, Read},
    process::ExitCode,
    time::Duration,
};

use rustix::thread::set_name;
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
    // What the kernel reports of a thread has its name, be it the only one or one of the runtime's.
    set_name(&CString::new(args.name.as_bytes())?)?;
    let runtime = threads(args.builtin).thread_name(&args.name).enable_all().build()?;
    runtime.block_on(run(args))?;
    Ok(ExitCode::SUCCESS)
}

/// The log leaves the bytes to the kernel: handing a connection from thread to thread would cost it more than it
/// does itself, in time and in latency (`make bench`). A scan works on every byte, and that divides well.
fn threads(builtin: Builtin) -> Builder {
    match builtin {
        Builtin::Log => Builder::new_current_thread(),
        Builtin::Scan => Builder::new_multi_thread(),
    }
}

async fn run(args: ServeArgs) -> Result<(), Box<dyn Error>> {
    let mut service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            shutdown.trigger();
        }
    });
    let idle = Duration::from_secs(args.idle);
    let datagrams = service.take_datagrams()?.map(|datagrams| datagrams.idle_after(idle));
    match args.builtin {
        Builtin::Log => Log { name: args.name, forgets: args.forget }.serve(service, datagrams).await?,
        Builtin::Scan => Scan::new(args.name, args.forget, patterns()?)?.serve(service, datagrams).await?,
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
