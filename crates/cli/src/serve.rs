//! A built-in service in its own process.

use std::{error::Error, process::ExitCode, thread};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use waylay::RedirectService;
use waylay_inspect::log::Log;

use crate::{args::ServeArgs, chain::Builtin};

pub(crate) fn serve(args: ServeArgs) -> Result<ExitCode, Box<dyn Error>> {
    let service = RedirectService::from_env()?;
    let shutdown = service.shutdown();
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            shutdown.trigger();
        }
    });
    match args.builtin {
        Builtin::Log => Log { name: args.name, forgets: args.forget }.serve(service)?,
    }
    Ok(ExitCode::SUCCESS)
}
