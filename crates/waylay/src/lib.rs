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

#[cfg(not(any(target_os = "linux", windows)))]
compile_error!("there is a backend for Linux and one for Windows, and none for this system");

mod accept;
mod context;
mod error;
mod inbound;
mod options;
mod platform;
mod pool;
mod service;
mod shutdown;
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
pub use platform::{AsSocket, RawSocket};
pub use pool::{PoolKey, Pooling};
pub use service::RedirectService;
pub use shutdown::Shutdown;
pub use waylay_core::RedirectState;
