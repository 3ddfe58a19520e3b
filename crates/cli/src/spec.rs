//! What a SPEC says: a service, and perhaps its name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::ValueEnum;
use waylay_config::meant;
use waylay_host::{Adoption, KnownBy, KnownByError, LocalName, Transports};

/// The kernel keeps names of at most this many bytes.
pub(crate) const LONGEST_NAME: usize = 31;

/// A service as it was typed: `[NAME=]SERVICE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// What it is to be called; else it gets a name after what it is.
    pub(crate) name: Option<String>,
    /// What it is.
    pub(crate) service: Service,
}

/// What a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// One that comes with waylay.
    Builtin {
        /// Which one.
        builtin: Builtin,
        /// What it takes.
        transports: Transports,
    },
    /// A program that cooperates, started by the shell.
    Exec {
        /// What it takes.
        transports: Transports,
        /// For the shell.
        command: String,
    },
    /// A program that knows nothing of waylay, started by the shell or running already.
    Adopt {
        /// What it takes.
        transports: Transports,
        /// By what it is known, where it listens and how it asks.
        adoption: Adoption,
        /// For the shell; empty if it runs already.
        command: String,
    },
}

/// A service that comes with waylay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Builtin {
    /// Lets everything pass and reports it
    Log,
    /// Ends a connection in which a pattern passes
    Scan,
}

const ADOPTED: &str = "as in adopt:127.0.0.1:5000=haproxy -db -f haproxy.cfg";
const RUNNING: &str = "as in adopt:127.0.0.1:5000@unit=haproxy.service";
const KNOWN: &str = "log, scan, exec:COMMAND, adopt:ADDRESS=COMMAND, adopt:ADDRESS@unit=NAME";
const ASKS_ITSELF: &str = "tproxy and packet are for adopt: only; what cooperates asks the kernel itself";
/// What a SPEC can begin with.
const BEGINNINGS: [&str; 4] = ["log", "scan", "exec:", "adopt:"];

impl Spec {
    pub(crate) fn parse(spec: &str) -> Result<Self, String> {
        // Behind the colon a command begins, which may have an equals sign of its own.
        match spec.split_once('=').filter(|(name, _)| !name.contains(':')) {
            Some((name, service)) => {
                check_name(name)?;
                Ok(Self { name: Some(name.to_owned()), service: Service::parse(service)? })
            }
            None => Ok(Self { name: None, service: Service::parse(spec)? }),
        }
    }

    /// What its name in chains starts with, if none was given.
    pub(crate) fn stem(&self) -> String {
        match &self.service {
            Service::Builtin { builtin, .. } => builtin.name().to_owned(),
            Service::Adopt { adoption: Adoption { known_by: Some(known_by), .. }, .. } => {
                presentable(&known_by.stem())
            }
            Service::Exec { command, .. } | Service::Adopt { command, .. } => stem(command),
        }
    }
}

impl From<Builtin> for Spec {
    fn from(builtin: Builtin) -> Self {
        Self { name: None, service: Service::Builtin { builtin, transports: Transports::TcpAndUdp } }
    }
}

impl Service {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, options) =
            text.split_once('/').map_or((text, None), |(name, options)| (name, Some(options)));
        if let Some(builtin) = Builtin::named(name) {
            return self::builtin(builtin, options);
        }
        let Some((kind, rest)) = text.split_once(':') else { return Err(unknown(text)) };
        let (kind, options) =
            kind.split_once('/').map_or((kind, None), |(kind, options)| (kind, Some(options)));
        match kind {
            "exec" => exec(options, rest),
            "adopt" => adopt(options, rest),
            _ => Err(unknown(text)),
        }
    }
}

impl Builtin {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Scan => "scan",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Log, Self::Scan].into_iter().find(|builtin| builtin.name() == name)
    }
}

fn builtin(builtin: Builtin, options: Option<&str>) -> Result<Service, String> {
    let Options { transports, local_name } = Options::parse(options)?;
    if local_name != LocalName::default() {
        return Err(ASKS_ITSELF.to_owned());
    }
    let transports = options.map_or(Transports::TcpAndUdp, |_| transports);
    Ok(Service::Builtin { builtin, transports })
}

fn exec(options: Option<&str>, command: &str) -> Result<Service, String> {
    let Options { transports, local_name } = Options::parse(options)?;
    if local_name != LocalName::default() {
        return Err(ASKS_ITSELF.to_owned());
    }
    match command.trim() {
        "" => Err("exec: needs a command, as in exec:./my-service".to_owned()),
        command => Ok(Service::Exec { transports, command: command.to_owned() }),
    }
}

fn adopt(options: Option<&str>, rest: &str) -> Result<Service, String> {
    let Options { transports, local_name } = Options::parse(options)?;
    let before = rest.split('=').next().unwrap_or_default();
    let (addresses, known_by, command) = match before.split_once('@') {
        Some((addresses, _)) => (addresses, Some(known_by(&rest[addresses.len() + 1..])?), ""),
        None => {
            let (addresses, command) = rest.split_once('=').unwrap_or((rest, ""));
            (addresses, None, command.trim())
        }
    };
    if known_by.is_none() && command.is_empty() {
        return Err(format!("adopt: needs an address and a command, {ADOPTED}, or {RUNNING}"));
    }
    let command = command.to_owned();
    let listens = addresses.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
    match listens[..] {
        [_] => {}
        [one, other] if one.is_ipv4() != other.is_ipv4() => {}
        _ => return Err(format!("{addresses}: one address, or one of IPv4 and one of IPv6")),
    }
    let takes_datagrams = |address: &SocketAddr| {
        address.ip().is_unspecified() || (address.is_ipv6() && local_name == LocalName::Packet)
    };
    if transports.include_udp() && !listens.iter().any(takes_datagrams) {
        return Err(format!(
            "{addresses}: datagrams come to an address of each flow, so that what takes UDP has to listen on 0.0.0.0"
        ));
    }
    Ok(Service::Adopt { transports, adoption: Adoption { known_by, listens, local_name }, command })
}

fn known_by(text: &str) -> Result<KnownBy, String> {
    text.trim().parse().map_err(|error: KnownByError| format!("adopt: {error}"))
}

/// Where a program that is to be adopted listens, as far as that can be judged by looking at it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_error| {
        format!("{text:?} is not an address with a port, such as 127.0.0.1:5000 or [::1]:5000, {ADOPTED}")
    })?;
    let link_local = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    if address.port() == 0 {
        return Err(format!("{address}: a service is found by its port, and nobody listens on 0"));
    }
    if link_local || address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{address}: connections of this host cannot be led there; 127.0.0.1 would do"));
    }
    if address.ip() != address.ip().to_canonical() {
        return Err(format!("{address}: write {} instead", address.ip().to_canonical()));
    }
    Ok(address)
}

/// What stands behind a slash: `udp`, `tcp+tproxy`.
struct Options {
    transports: Transports,
    local_name: LocalName,
}

impl Options {
    fn parse(options: Option<&str>) -> Result<Self, String> {
        let (mut tcp, mut udp, mut local_name) = (false, false, LocalName::default());
        for option in options.into_iter().flat_map(|options| options.split('+')) {
            match option {
                "tcp" => tcp = true,
                "udp" => udp = true,
                "tproxy" => local_name = local_name.max(LocalName::Destination),
                "packet" => local_name = LocalName::Packet,
                _ => {
                    return Err(format!(
                        "/{option}: no such option; known options: tcp, udp, tproxy, packet"
                    ));
                }
            }
        }
        let transports = match (tcp, udp) {
            (_, false) => Transports::Tcp,
            (false, true) => Transports::Udp,
            (true, true) => Transports::TcpAndUdp,
        };
        Ok(Self { transports, local_name })
    }
}

fn unknown(text: &str) -> String {
    let beginning = text.split_inclusive(':').next().unwrap_or(text);
    let meant = meant(beginning, BEGINNINGS).map_or_else(String::new, |name| format!(" (is {name} meant?)"));
    format!("no such service{meant}; known services: {KNOWN}")
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_of_a_name) {
        return Err(format!("a name has 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"));
    }
    Ok(())
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || ".-_".contains(character)
}

/// The file of a command's program, without what a shell or a terminal could stumble over.
fn stem(command: &str) -> String {
    let program = command.split_whitespace().next().unwrap_or("exec");
    let file = program.trim_matches(['"', '\'']).rsplit('/').next().unwrap_or(program);
    let stem = presentable(file);
    if stem.is_empty() { "exec".to_owned() } else { stem }
}

fn presentable(name: &str) -> String {
    name.chars().map(|c| if is_of_a_name(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_spec_lists_the_known_ones_and_the_one_that_may_be_meant() {
        let known = "known services: log, scan, exec:COMMAND, adopt:ADDRESS=COMMAND, adopt:ADDRESS@unit=NAME";
        assert_eq!(Spec::parse("proxy").unwrap_err(), format!("no such service; {known}"));
        for (spec, meant) in [
            ("lgo", "log"),
            ("scna", "scan"),
            ("exce:./guard", "exec:"),
            ("adpot:127.0.0.1:5000=haproxy", "adopt:"),
        ] {
            let error = Spec::parse(spec).unwrap_err();
            assert_eq!(error, format!("no such service (is {meant} meant?); {known}"));
        }
        assert_eq!(Spec::parse("exec: ").unwrap_err(), "exec: needs a command, as in exec:./my-service");
    }

    #[test]
    fn a_name_is_what_stands_before_the_first_equals_sign() {
        let named = Spec::parse("my-guard.1=exec:MODE=strict guard").unwrap();
        assert_eq!(named.name.as_deref(), Some("my-guard.1"));
        let command = "MODE=strict guard".to_owned();
        assert_eq!(named.service, Service::Exec { transports: Transports::Tcp, command });
        assert_eq!(Spec::parse("exec:MODE=strict guard").unwrap().name, None);
        for name in ["", "a b", "a/b", "\u{1b}", "12345678901234567890123456789012"] {
            let error = Spec::parse(&format!("{name}=log")).unwrap_err();
            assert!(error.starts_with("a name has 1 to 31 letters"), "{name}: {error}");
        }
    }

    #[test]
    fn a_program_gives_its_file_as_a_name() {
        for (command, stem) in [
            ("/opt/dlp/guard --strict", "guard"),
            ("\"/opt/dlp/guard\" --strict", "guard"),
            ("./my.service", "my.service"),
            ("/opt/w\u{e4}chter", "w_chter"),
            ("/", "exec"),
        ] {
            assert_eq!(Spec::parse(&format!("exec:{command}")).unwrap().stem(), stem, "{command}");
        }
    }

    fn adopted(spec: &str) -> (Option<String>, Transports, Adoption, String) {
        let Spec { name, service } = Spec::parse(spec).unwrap();
        match service {
            Service::Adopt { transports, adoption, command } => (name, transports, adoption, command),
            other @ (Service::Builtin { .. } | Service::Exec { .. }) => panic!("{spec}: {other:?}"),
        }
    }

    #[test]
    fn what_is_adopted_has_an_address_before_and_a_command_after_the_equals_sign() {
        let (name, transports, adoption, command) = adopted("adopt:127.0.0.1:5000=haproxy -f x=y.cfg");
        assert_eq!((name, transports, command.as_str()), (None, Transports::Tcp, "haproxy -f x=y.cfg"));
        assert_eq!(adoption.listens, ["127.0.0.1:5000".parse().unwrap()]);
        assert_eq!(adoption.local_name, LocalName::Listener);
        let (name, transports, adoption, _) =
            adopted("front=adopt/tcp+udp+tproxy:0.0.0.0:5000,[::]:5000=nginx");
        assert_eq!((name.as_deref(), transports), (Some("front"), Transports::TcpAndUdp));
        assert_eq!(adoption.listens, ["0.0.0.0:5000".parse().unwrap(), "[::]:5000".parse().unwrap()]);
        assert_eq!(adoption.local_name, LocalName::Destination);
        for packet in
            ["adopt/udp+packet:0.0.0.0:5000=ss-redir", "adopt/packet+udp+tproxy:0.0.0.0:5000=ss-redir"]
        {
            assert_eq!(adopted(packet).2.local_name, LocalName::Packet, "{packet}");
        }
        assert_eq!(adopted("adopt/tproxy:[::]:5000=nginx").1, Transports::Tcp);
        assert_eq!(adopted("adopt/udp:[::]:5000=nginx").1, Transports::Udp);
    }

    #[test]
    fn what_runs_already_is_known_by_what_stands_after_the_at_sign() {
        let (name, transports, adoption, command) = adopted("adopt:127.0.0.1:5000@unit=haproxy");
        assert_eq!((name, transports, command.as_str()), (None, Transports::Tcp, ""));
        assert_eq!(adoption.known_by, Some(KnownBy::Unit("haproxy.service".into())));
        let (name, transports, adoption, _) =
            adopted("front=adopt/tcp+udp+tproxy:0.0.0.0:5000,[::]:5000@exe=/usr/sbin/x=y@z");
        assert_eq!((name.as_deref(), transports), (Some("front"), Transports::TcpAndUdp));
        assert_eq!(adoption.known_by, Some(KnownBy::Exe("/usr/sbin/x=y@z".into())));
        assert_eq!(adoption.listens, ["0.0.0.0:5000".parse().unwrap(), "[::]:5000".parse().unwrap()]);
        // An at sign behind the equals sign is the command's.
        let (_, _, adoption, command) = adopted("adopt:127.0.0.1:5000=ssh me@there");
        assert_eq!((adoption.known_by, command.as_str()), (None, "ssh me@there"));
        for (spec, stem) in [
            ("adopt:127.0.0.1:5000@unit=haproxy", "haproxy"),
            ("adopt:127.0.0.1:5000@cgroup=/a.slice/my proxy", "my_proxy"),
            ("adopt:127.0.0.1:5000@uid=7", "uid-7"),
        ] {
            assert_eq!(Spec::parse(spec).unwrap().stem(), stem, "{spec}");
        }
    }

    #[test]
    fn what_cooperates_may_say_which_transports_it_takes() {
        let transports = |spec| match Spec::parse(spec).unwrap().service {
            Service::Builtin { transports, .. } | Service::Exec { transports, .. } => transports,
            other @ Service::Adopt { .. } => panic!("{spec}: {other:?}"),
        };
        for spec in ["exec:./dns", "log/tcp", "scan/tcp"] {
            assert_eq!(transports(spec), Transports::Tcp, "{spec}");
        }
        for spec in ["exec/udp:./dns", "dns=log/udp"] {
            assert_eq!(transports(spec), Transports::Udp, "{spec}");
        }
        for spec in ["guard=exec/tcp+udp:./dns", "log", "scan/tcp+udp"] {
            assert_eq!(transports(spec), Transports::TcpAndUdp, "{spec}");
        }
        for spec in ["exec/tproxy:./dns", "log/tproxy"] {
            assert_eq!(Spec::parse(spec).unwrap_err(), ASKS_ITSELF);
        }
        let unknown = Spec::parse("log/tpc").unwrap_err();
        assert_eq!(unknown, "/tpc: no such option; known options: tcp, udp, tproxy, packet");
        let error = Spec::parse("exec/tproxy:./dns").unwrap_err();
        assert!(error.starts_with("tproxy and packet are for adopt: only"), "{error}");
    }

    #[test]
    fn an_address_where_no_service_can_be_is_refused_in_words() {
        for (spec, words) in [
            ("adopt:haproxy -f x.cfg", "needs an address and a command, as in adopt:127.0.0.1:5000="),
            ("adopt:127.0.0.1:5000=", "needs an address and a command"),
            ("adopt:5000=haproxy", "\"5000\" is not an address with a port"),
            ("adopt:localhost:5000=haproxy", "\"localhost:5000\" is not an address with a port"),
            ("adopt:127.0.0.1:=haproxy", "is not an address with a port"),
            ("adopt:127.0.0.1:65536=haproxy", "is not an address with a port"),
            ("adopt:::1:5000=haproxy", "is not an address with a port"),
            ("adopt:127.0.0.1:0=haproxy", "nobody listens on 0"),
            ("adopt:224.0.0.1:5000=haproxy", "cannot be led there"),
            ("adopt:255.255.255.255:5000=haproxy", "cannot be led there"),
            ("adopt:[fe80::1]:5000=haproxy", "cannot be led there"),
            ("adopt:[::ffff:127.0.0.1]:5000=haproxy", "write 127.0.0.1 instead"),
            ("adopt:127.0.0.1:1,127.0.0.1:2=haproxy", "one address, or one of IPv4 and one of IPv6"),
            ("adopt:127.0.0.1:1,[::1]:1,[::]:2=haproxy", "one address, or one of IPv4 and one of IPv6"),
            ("adopt:127.0.0.1:1@haproxy", "known by unit=, cgroup=, exe= or uid="),
            ("adopt:127.0.0.1:1@pid=7", "known by unit=, cgroup=, exe= or uid="),
            ("adopt:127.0.0.1:1@unit=", "unit= needs a value"),
            ("adopt:@unit=haproxy", "is not an address with a port"),
            (
                "adopt/sctp:127.0.0.1:1=haproxy",
                "/sctp: no such option; known options: tcp, udp, tproxy, packet",
            ),
            ("adopt/udp:127.0.0.1:1=nginx", "what takes UDP has to listen on 0.0.0.0"),
            ("adopt/:127.0.0.1:1=haproxy", "no such option"),
        ] {
            let error = Spec::parse(spec).unwrap_err();
            assert!(error.contains(words), "{spec}: {error}");
        }
    }
}
