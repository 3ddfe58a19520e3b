//! What is read of files and sockets, of any content: for fuzzing, and for the tests that go on from it.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "it is reached by the targets in `fuzz` only"))]

use std::{io, net::IpAddr, path::Path};

use crate::{
    cgroup::{unified_membership, unified_mount},
    doctor::{hidepid, holder, id_of_directory, lockdown},
    instance::{Record, id_of},
    launch::{Launch, Listening},
    routes::of_messages,
};

/// The files of proc(5) and sysfs(5) that are read, and what waylay's own processes write for one another.
pub fn files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _mount = unified_mount(&text);
    let _hidden = hidepid(&text);
    let _locked_down = lockdown(&text);
    if let Some(membership) = unified_membership(&text) {
        assert!(text.contains(&format!("0::{membership}")));
    }
    for line in text.lines() {
        assert!(id_of_directory(Path::new(line)).is_none_or(|id| id.len() == 16), "{line:?}");
        let _number = id_of(Path::new(line));
        let _owner = holder(line, 0x1a, 42);
    }
    written_by_us(&text);
}

fn written_by_us(text: &str) {
    let _record = serde_json::from_str::<Record>(text);
    if let Ok(listening) = serde_json::from_str::<Listening>(text) {
        let again = serde_json::to_string(&listening).and_then(|text| serde_json::from_str(&text));
        assert!(again.is_ok_and(|again: Listening| again == listening), "{listening:?}");
    }
    let _launch = text.parse::<Launch>();
}

/// A datagram of the kernel about routes. Its first byte says to which destinations there is a way.
pub fn routes(bytes: &[u8]) {
    let Some((&reached, messages)) = bytes.split_first() else { return };
    let ask = |address: IpAddr| match (address.is_ipv4(), reached & 1, reached & 2) {
        (true, 1, _) | (false, _, 2) => Ok(address),
        (_, _, _) => Err(io::Error::from_raw_os_error(i32::from(reached >> 2))),
    };
    let Ok(routes) = of_messages(messages, ask) else { return };
    assert!(!routes.is_empty(), "everything has at least the default's answer");
    for (prefix, reach) in routes.iter() {
        assert!(prefix.length() <= 128, "{prefix:?}: {reach:?}");
    }
}

/// A datagram of the kernel about sockets.
pub fn sockets(bytes: &[u8]) {
    let mut sockets = Vec::new();
    let _outcome = waylay_diag::read(bytes, &mut sockets);
    assert!(sockets.len() <= bytes.len() / 88, "a socket has 88 bytes: {sockets:?}");
    for socket in sockets {
        // What it says of itself hangs together.
        assert!(socket.addresses().into_iter().all(|address| socket.takes(address)), "{socket:?}");
    }
}

#[cfg(test)]
mod tests {
    use waylay_corpus::replay;

    #[test]
    fn no_file_is_too_strange() {
        replay("files", super::files);
    }

    #[test]
    fn no_message_about_sockets_is_too_strange() {
        replay("sockets", super::sockets);
    }

    #[test]
    fn no_message_about_routes_is_too_strange() {
        replay("routes", super::routes);
    }
}
