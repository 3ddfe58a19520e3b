//! The library for authors of redirect services.
//!
//! A redirect service is a local proxy that applications' connections are
//! redirected to by the kernel. It accepts one, asks who it is from and where
//! it was going, and connects on with the *redirect records* of the accepted
//! socket set on the new one, so that the kernel knows who has had the
//! connection already.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! waylay::RedirectService::from_env()?
//!     .serve(|inbound| async move {
//!         println!("{} -> {}", inbound.context().application(), inbound.original_destination());
//!         let Ok(outbound) = inbound.connect().await else { return };
//!         // Move bytes between the two: waylay_relay::relay(inbound, outbound).await
//!         # let _ = outbound;
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Two layers: [`RedirectService`] accepts, asks and dials, and has no way to
//! dial without records; below it [`query_redirect_records`],
//! [`query_redirect_context`], [`set_redirect_records`] and their neighbours
//! work on any socket. The names are those of Microsoft's control codes
//! `SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS`, `…_CONTEXT` and `SIO_SET_…`.
//!
//! The library never inspects or forwards a byte: `waylay-relay` moves them.
//!
//! # On Windows
//!
//! The same program is a redirect service for Windows 8 and later, where
//! somebody's callout driver does the redirecting; waylay has none. What
//! differs:
//!
//! * [`RedirectService::from_env`] listens on the addresses of `WAYLAY_LISTEN`,
//!   with commas between them: those the driver redirects to.
//! * Records, the original destination (`SO_ORIGINAL_DST`, which old versions
//!   do not have) and what the driver [attached](RedirectContext::attached) are
//!   all that user mode is told. The application is
//!   [unknown](Application::UNKNOWN), so no two connections share an upstream
//!   one; the chain is empty; ids are 0; and [`redirect_state`] fails with
//!   [`QueryError::NotSupported`] for a connection that was redirected.
//! * Setting records takes an elevated administrator.
//! * `waylay-relay` is for Linux. `tokio::io::copy_bidirectional` moves bytes
//!   anywhere; a service that uses it switches `SO_LINGER` off once it has
//!   returned in order, as `examples/portable.rs` does.
//!
//! Its tests run under Wine, whose Winsock has none of the control codes. They
//! prove that the library links, makes its calls as Winsock wants them, and
//! says what is missing. With a driver it has not been tried.

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("there is a backend for Linux and one for Windows, and none for this system");

mod accept;
mod context;
pub mod datagrams;
mod error;
mod inbound;
mod options;
mod platform;
mod pool;
mod service;
mod shutdown;
mod socket;
#[cfg(test)]
mod testing;
pub mod winsock;

pub use context::{Application, ChainHop, RedirectContext};
pub use error::{ConnectError, QueryError, ServeError, SetError, StartError};
pub use inbound::{Inbound, Outbound};
pub use options::{
    RedirectRecords, query_original_destination, query_redirect_chain, query_redirect_context,
    query_redirect_records, redirect_state, set_redirect_records,
};
#[cfg(target_os = "linux")]
pub use platform::control;
#[cfg(all(fuzzing, target_os = "linux"))]
pub use platform::{answers, environment};
pub use pool::{PoolKey, Pooling};
pub use service::RedirectService;
pub use shutdown::Shutdown;
pub use socket::{AsSocket, RawSocket};
pub use waylay_core::RedirectState;
