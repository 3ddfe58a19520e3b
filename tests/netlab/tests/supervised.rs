//! connect() by the engine without privileges, where it takes time or leads nowhere: as it does without waylay.

use waylay_netlab::{Corners, Waylay, system_python};

mod where_nobody_listens {
    use super::*;

    const DIAL: &str = "
import errno, socket, sys
for host in sys.argv[2:]:
    try: print(socket.create_connection((host, int(sys.argv[1]))).recv(5, socket.MSG_WAITALL).decode())
    except OSError as error: print(errno.errorcode[error.errno])";

    fn dial(waylay: Waylay, port: u16, hosts: &[&str]) -> waylay_netlab::Finished {
        let port = port.to_string();
        let command = [&[system_python(), "-c", DIAL, &port][..], hosts].concat();
        waylay.through_logs(2).reporting().watch(command).well()
    }

    #[test]
    fn connect_is_refused_as_it_is_with_the_other_engine() {
        let free = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let hosts = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"];
        let finished = dial(Waylay::run_without_root(None), free, &hosts);
        assert_eq!(finished.stdout, "ECONNREFUSED\n".repeat(4), "{finished:?}");
        assert_eq!(finished.stderr.matches("refused with ECONNREFUSED: nobody listens there").count(), 4);
        assert_eq!(finished.reports(), []);
    }

    /// Which somebody without privileges cannot look at.
    #[test]
    fn a_rule_that_translates_addresses_is_followed() {
        let corners = Corners::new();
        let [four, ..] = corners.greeters();
        let (port, other) = (four.address.port(), 4242);
        let rule = format!(
            "table ip published {{\nchain out {{\ntype nat hook output priority -100\ntcp dport {other} redirect to :{port}\n}}\n}}"
        );
        assert!(corners.client("nft").arg(rule).status().unwrap().success());
        let finished = dial(corners.waylay_without_root(), other, &["127.0.0.1"]);
        assert_eq!(finished.stdout, "hello\n", "{finished:?}");
        assert_eq!(finished.reports_of("log-2").len(), 1, "{finished:?}");
    }
}

/// Each line is what comes of a connection, whether that took as long as it should, and how often the handler ran.
const INTERRUPTED: &str = "
import ctypes, errno, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
host, silent, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
handled = []
signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
def dial(port, least, most, restart=False, patience=None, alarm=0.2, send=signal.setitimer):
    signal.siginterrupt(signal.SIGALRM, not restart)
    address = struct.pack('=HH4s8x', socket.AF_INET, socket.htons(port), socket.inet_aton(host))
    one = socket.socket()
    option = (socket.SOL_SOCKET, socket.SO_SNDTIMEO)
    given = struct.pack('qq', 0, patience or 0)
    one.setsockopt(*option, given)
    signal.setitimer(signal.ITIMER_REAL, alarm)
    begun = time.monotonic()
    result = libc.connect(one.fileno(), address, 16)
    took = time.monotonic() - begun
    signal.setitimer(signal.ITIMER_REAL, 0)
    print('ok' if result == 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()),
          least <= took <= most or took, len(handled), one.getsockopt(*option, 16) == given, flush=True)
dial(silent, 0.15, 0.9)
dial(silent, 0.4, 1.2, alarm=0, patience=500000)
dial(silent, 0.15, 0.9, restart=True, patience=900000)
dial(slow, 0.8, 3, restart=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
dial(silent, 0.4, 1.2, patience=500000)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
dial(silent, 0.4, 1.2, patience=500000)
";

#[test]
fn a_signal_interrupts_a_connection_that_blocks_as_the_kernel_has_it() {
    let corners = Corners::new();
    let [_, _, far, _] = corners.greeters();
    let (silent, slow) = (4243, far.address.port());
    // The first packet to `slow` is lost, and the second comes after a second.
    let rules = format!(
        "flush ruleset\ntable ip holes {{\nchain in {{\ntype filter hook input priority 0\n\
         tcp dport {silent} drop\ntcp dport {slow} tcp flags syn quota until 100 bytes drop\n}}\n}}"
    );
    let make_holes = || assert!(corners.server(far.corner, "nft").arg(&rules).status().unwrap().success());
    let host = far.address.ip().to_string();
    let command = [system_python(), "-u", "-c", INTERRUPTED, &host, &silent.to_string(), &slow.to_string()]
        .map(str::to_owned);
    make_holes();
    let direct = corners.client(&command[0]).args(&command[1..]).output().unwrap();
    let expected = String::from_utf8(direct.stdout).unwrap();
    assert!(
        expected.starts_with("EINTR True 1 True\nEINPROGRESS True 1 True\nEINTR True 2 True\nok True 3"),
        "{expected}"
    );
    make_holes();
    // No service is wanted for these, so that they are the kernel's own.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(
        &policy,
        "[sublayer.base]\n[[filter]]\naction = \"block\"\nsublayer = \"base\"\nif.port = 9\n",
    )
    .unwrap();
    let waylay = corners.waylay_without_root().args(["--policy", policy.to_str().unwrap()]);
    let finished = waylay.watch(&command).well();
    assert_eq!(finished.stdout, expected, "{finished:?}");
}
