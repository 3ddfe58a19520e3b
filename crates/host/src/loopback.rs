//! Whether an address of the loopback where nobody listens leads nowhere: then the programs refuse connections to it as the
//! kernel would have, instead of leading them to a service that finds out too late.
//!
//! It is not so where something rewrites destinations on their way: a rule for address translation, as containers' engines
//! have them, or somebody's program at connect(). Nobody tells when such a thing comes, so it is looked for now and then.

use std::{
    fs, io,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::NETFILTER};
use waylay_engine_ebpf::{Hook, LoopbackMark, hooked};

use crate::cgroup::Cgroup;

const PAUSE: Duration = Duration::from_secs(2);
/// More than a datagram of a dump has.
const BUFFER_BYTES: usize = 64 * 1024;

/// Looks on a thread of its own, the first time before it returns.
pub(crate) struct LoopbackWatch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl LoopbackWatch {
    /// `above` are the cgroups whose programs are asked after the scope's.
    pub(crate) fn start(mark: LoopbackMark, above: Vec<Cgroup>) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        // Who does not know leaves the finding out to the services.
        let look = move || {
            let _as_before = mark.set(is_plain(&above));
        };
        look();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                look();
            }
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        // One that panicked has ended too.
        let _ended = self.thread.join();
    }
}

fn is_plain(above: &[Cgroup]) -> bool {
    !has_old_rules() && has_rules().is_ok_and(|has_some| !has_some) && !is_rewritten_by_others(above)
}

/// Of iptables before nftables.
fn has_old_rules() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|path| fs::read_to_string(path).unwrap_or_default().lines().any(|table| table == "nat"))
}

/// Whether a chain of nftables translates addresses.
fn has_rules() -> io::Result<bool> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    rustix::net::send(&socket, &LIST_CHAINS, SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()))?;
        match read(&buffer[..length]) {
            Found::Nothing => {}
            Found::Translation => return Ok(true),
            Found::End => return Ok(false),
        }
    }
}

/// `struct nlmsghdr` and `struct nfgenmsg`: `NFT_MSG_GETCHAIN` of `NFNL_SUBSYS_NFTABLES`, `NLM_F_REQUEST | NLM_F_DUMP`, of
/// all families.
const LIST_CHAINS: [u8; 20] = {
    let (length, kind, flags) = (20_u32.to_ne_bytes(), 0x0a04_u16.to_ne_bytes(), 0x301_u16.to_ne_bytes());
    let [l0, l1, l2, l3] = length;
    [l0, l1, l2, l3, kind[0], kind[1], flags[0], flags[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
};

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Translation,
    End,
}

/// `NLMSG_ERROR`: the kernel has no nftables, and so no chain. `NLMSG_DONE` ends the list.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// One datagram of the list. The type of a chain is an attribute of its own, a string that ends with a zero; a chain of
/// another type that is *called* `nat` counts too, which costs nothing but an early refusal.
fn read(datagram: &[u8]) -> Found {
    let kind = datagram.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(ERROR, u16::from_ne_bytes);
    if kind == ERROR || kind == DONE {
        return Found::End;
    }
    if datagram.windows(4).any(|bytes| bytes == b"nat\0") { Found::Translation } else { Found::Nothing }
}

fn is_rewritten_by_others(above: &[Cgroup]) -> bool {
    let connects = |hook| [Hook::Inet4Connect, Hook::Inet6Connect].contains(&hook);
    above.iter().any(|cgroup| match hooked(cgroup.path()) {
        Ok(attached) => attached.iter().any(|one| {
            let is_ours = |name: &Option<String>| name.as_deref().is_some_and(|name| name.starts_with("wl_"));
            connects(one.hook) && !one.programs.iter().all(|program| is_ours(&program.name))
        }),
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, rest: &[u8]) -> Vec<u8> {
        [&20_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], rest].concat()
    }

    #[test]
    fn a_chain_that_translates_is_told_by_its_type() {
        assert_eq!(read(&message(0x0a03, b"\x08\0\x07\0nat\0")), Found::Translation);
        assert_eq!(read(&message(0x0a03, b"\x0b\0\x07\0filter\0")), Found::Nothing);
        assert_eq!(read(&message(DONE, &[0; 4])), Found::End);
        assert_eq!(read(&message(ERROR, b"nat\0")), Found::End);
        assert_eq!(read(b""), Found::End);
    }
}
