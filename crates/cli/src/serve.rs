//! A built-in service in its own process.

use std::{
    error::Error,
    io::{self, Read},
    process::ExitCode,
    thread,
};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use waylay::RedirectService;
use waylay_inspect::{
    log::Log,
    scan::{Patterns, Scan},
};

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
        Builtin::Scan => Scan::new(args.name, args.forget, patterns()?)?.serve(service)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `waylay run` hands them over on standard input: as arguments everybody could read them in ps(1).
fn patterns() -> Result<Patterns, Box<dyn Error>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let patterns = Patterns::decode(&bytes)?;
    Ok(patterns)
}
