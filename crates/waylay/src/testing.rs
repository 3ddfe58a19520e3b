//! What the tests of several modules need to know about the system they run on.

use std::{
    env,
    io::{ErrorKind, Read},
    net::{Ipv6Addr, SocketAddr, TcpStream},
};

use crate::context::{Application, FileId, RedirectContext, Wishes};

/// Whether this is Wine, which shows its programs the variable. Its Winsock has none of the control codes.
pub(crate) fn is_wine() -> bool {
    cfg!(windows) && env::var_os("WINEPREFIX").is_some()
}

/// Whether the peer reset the connection.
///
/// Wine shuts every socket down before it closes it, so that the end may be
/// seen before the reset that follows it: there it proves less.
pub(crate) fn was_reset(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0 && is_wine(),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// A context that differs from others in what is said.
pub(crate) fn context(change: impl FnOnce(&mut RedirectContext)) -> RedirectContext {
    let mut context = RedirectContext {
        application: Application { pid: 100, uid: 0, ..Application::UNKNOWN },
        executable: FileId::default(),
        original_destination: SocketAddr::from((Ipv6Addr::LOCALHOST, 80)),
        wishes: Wishes::default(),
        flow: 0,
        service_id: 0,
        filter_id: 0,
        attached: Vec::new(),
    };
    change(&mut context);
    context
}
