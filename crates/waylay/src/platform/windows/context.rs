//! As much of a context as user mode is told.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::context::{Application, FileId, RedirectContext, Wishes};

/// Numbers given to contexts so far.
static FLOWS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn new(original_destination: SocketAddr, attached: Vec<u8>) -> RedirectContext {
    RedirectContext {
        application: Application::UNKNOWN,
        executable: FileId::default(),
        original_destination,
        wishes: Wishes::default(),
        flow: FLOWS.fetch_add(1, Ordering::Relaxed) + 1,
        service_id: 0,
        filter_id: 0,
        attached,
    }
}
