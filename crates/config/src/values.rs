//! Values as people write them.

use std::net::{IpAddr, SocketAddr};

use waylay_core::{CommandName, Errno, HostName, HostPattern, PortRange, Prefix, PrefixError};

use crate::declaration::{ExePattern, NamespaceName, UnitName};
use crate::problem::Problem;

/// What the kernel keeps of a service's name.
pub const LONGEST_SERVICE: usize = 31;
/// Of names that nothing but people reads.
pub(crate) const LONGEST_NAME: usize = 63;
/// What the usual tools show of a container's id.
const SHORTEST_CONTAINER_ID: usize = 12;
const LONGEST_CONTAINER_ID: usize = 64;

/// A name of a service, sublayer or filter.
pub(crate) fn name(text: &str, longest: usize) -> Result<&str, Problem> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > longest || !text.bytes().all(fits) {
        return Err(Problem::Name { name: text.to_owned(), longest });
    }
    Ok(text)
}

/// `192.0.2.1`, `192.0.2.0/24`, the same of IPv6.
pub(crate) fn prefix(text: &str) -> Result<Prefix, (Problem, Option<String>)> {
    let no_prefix = || (Problem::Address(text.to_owned()), None);
    let Some((address, length)) = text.split_once('/') else {
        let address: IpAddr = text.parse().ok().ok_or_else(no_prefix)?;
        return Ok(Prefix::host(address));
    };
    let address: IpAddr = address.parse().ok().ok_or_else(no_prefix)?;
    let length: u8 = length.parse().ok().ok_or_else(no_prefix)?;
    Prefix::new(address, length).map_err(|error| {
        let help = match error {
            PrefixError::HostBits { network, .. } => Some(format!("did you mean \"{network}\"?")),
            PrefixError::TooLong { .. } => None,
        };
        (Problem::Prefix(error), help)
    })
}

/// `80`, `8000-8100`.
pub(crate) fn ports(text: &str) -> Result<PortRange, Problem> {
    let port = |port: &str| port.trim().parse::<u16>().ok().ok_or_else(|| Problem::Ports(text.to_owned()));
    match text.split_once('-') {
        None => Ok(PortRange::single(port(text)?)),
        Some((first, last)) => {
            let range = PortRange::new(port(first)?, port(last)?);
            range.ok().ok_or_else(|| Problem::ReversedPorts(text.to_owned()))
        }
    }
}

/// Where a proxy listens.
pub(crate) fn listener(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().ok().ok_or_else(|| Problem::Listener(text.to_owned()))
}

/// Where names are asked for.
const DNS_PORT: u16 = 53;

/// A resolver: an address, with a port or without.
pub(crate) fn resolver(text: &str) -> Result<SocketAddr, Problem> {
    let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    alone.or_else(|_| text.parse()).ok().ok_or_else(|| Problem::Resolver(text.to_owned()))
}

/// `example.com`, `*.example.com`.
pub(crate) fn host(text: &str) -> Result<HostPattern, Problem> {
    let read = match text.strip_prefix("*.") {
        Some(above) => HostName::new(above).map(HostPattern::Below),
        None => HostName::new(text).map(HostPattern::Name),
    };
    read.map_err(|error| Problem::HostName { name: text.to_owned(), error })
}

/// `own`, `host`, or the path of a file.
pub(crate) fn namespace(text: &str) -> Result<NamespaceName, Problem> {
    match text {
        "own" => Ok(NamespaceName::Own),
        "host" => Ok(NamespaceName::Path(NamespaceName::HOST.to_owned())),
        path if path.starts_with('/') => Ok(NamespaceName::Path(path.to_owned())),
        _ => Err(Problem::NetworkNamespace(text.to_owned())),
    }
}

/// An absolute path, perhaps with wildcards.
pub(crate) fn executable(text: &str) -> Result<ExePattern, Problem> {
    if !text.starts_with('/') {
        return Err(Problem::RelativePath(text.to_owned()));
    }
    ExePattern::new(text).map_err(|error| Problem::Pattern { pattern: text.to_owned(), reason: error.msg })
}

/// What the kernel keeps of a command name, and whether that is all of it.
pub(crate) fn command(text: &str) -> (CommandName, Option<Problem>) {
    let kept = CommandName::new(text);
    let problem = (text.len() > CommandName::LEN).then(|| Problem::LongCommand { kept: kept.to_string() });
    (kept, problem)
}

/// A path in the hierarchy of cgroups.
pub(crate) fn cgroup(text: &str) -> Result<String, Problem> {
    if !text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(Problem::RelativePath(text.to_owned()));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(format!("/{}", parts.join("/")))
}

/// A unit that has a cgroup.
pub(crate) fn unit(text: &str) -> Result<UnitName, (Problem, Option<String>)> {
    UnitName::new(text).ok_or_else(|| {
        let bare = !text.is_empty() && !text.contains(['.', '/']);
        let help = bare.then(|| format!("did you mean \"{text}.service\"?"));
        (Problem::Unit(text.to_owned()), help)
    })
}

/// The id of a container, or enough of it.
pub(crate) fn container(text: &str) -> Result<String, Problem> {
    let hexadecimal = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !hexadecimal || !(SHORTEST_CONTAINER_ID..=LONGEST_CONTAINER_ID).contains(&text.len()) {
        return Err(Problem::Container(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// An error number by its name.
pub(crate) fn errno(text: &str) -> Result<Errno, Problem> {
    Errno::named(text).ok_or_else(|| Problem::Errno(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_addresses_with_or_without_a_length() {
        assert_eq!(prefix("192.0.2.0/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(prefix("::1").unwrap().to_string(), "::1/128");
        assert_eq!(prefix("192.0.2.1/24").unwrap_err().1.unwrap(), "did you mean \"192.0.2.0/24\"?");
        assert!(matches!(prefix("192.0.2.0/33"), Err((Problem::Prefix(_), None))));
        for text in ["", "example.test", "192.0.2.0/", "192.0.2/24", "192.0.2.0/-1"] {
            assert!(matches!(prefix(text), Err((Problem::Address(_), None))), "{text}");
        }
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!(ports("80"), Ok(PortRange::single(80)));
        assert_eq!(ports("1-1024"), Ok(PortRange::new(1, 1024).unwrap()));
        assert_eq!(ports("9-1"), Err(Problem::ReversedPorts("9-1".into())));
        for text in ["", "http", "65536", "1-2-3", "-1"] {
            assert!(matches!(ports(text), Err(Problem::Ports(_))), "{text}");
        }
    }

    #[test]
    fn resolvers_are_addresses_and_may_have_a_port() {
        assert_eq!(resolver("192.0.2.1").unwrap().to_string(), "192.0.2.1:53");
        assert_eq!(resolver("::1").unwrap().to_string(), "[::1]:53");
        assert_eq!(resolver("127.0.0.1:5353").unwrap().port(), 5353);
        assert_eq!(resolver("dns.example"), Err(Problem::Resolver("dns.example".into())));
    }

    #[test]
    fn a_star_is_all_names_below() {
        let name = HostName::new("example.com").unwrap();
        assert_eq!(host("Example.com"), Ok(HostPattern::Name(name.clone())));
        assert_eq!(host("*.example.com"), Ok(HostPattern::Below(name)));
        for text in ["", "*", "*.", "a.*.b", "*.*.b", "192.0.2.1/24", "a b"] {
            assert!(matches!(host(text), Err(Problem::HostName { .. })), "{text}");
        }
    }

    #[test]
    fn namespaces_are_words_or_paths() {
        assert_eq!(namespace("own"), Ok(NamespaceName::Own));
        assert_eq!(namespace("host"), Ok(NamespaceName::Path("/proc/1/ns/net".into())));
        assert_eq!(namespace("/run/netns/a"), Ok(NamespaceName::Path("/run/netns/a".into())));
        assert!(matches!(namespace("a"), Err(Problem::NetworkNamespace(_))));
    }

    #[test]
    fn cgroups_are_paths_in_one_form() {
        assert_eq!(cgroup("/user.slice//a/"), Ok("/user.slice/a".into()));
        assert_eq!(cgroup("/"), Ok("/".into()));
        assert!(cgroup("user.slice").is_err());
        assert!(cgroup("/a/../b").is_err());
    }

    #[test]
    fn units_are_those_that_have_a_cgroup() {
        assert_eq!(unit("ssh.service").unwrap().as_str(), "ssh.service");
        assert_eq!(unit("ssh").unwrap_err().1.unwrap(), "did you mean \"ssh.service\"?");
        for text in ["", ".service", "a/b.service", "daily.timer"] {
            assert!(unit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn containers_are_known_by_enough_of_their_id() {
        assert!(container("0123456789ab").is_ok());
        for text in ["0123456789a", "0123456789AB", "my-container"] {
            assert!(container(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_stay_within_a_part_of_the_path() {
        let pattern = executable("/usr/bin/python3*").unwrap();
        assert!(pattern.has_wildcards() && pattern.covers("/usr/bin/python3.11"));
        assert!(!pattern.covers("/usr/bin/python3/x"));
        assert!(executable("/opt/**/bin/app").unwrap().covers("/opt/a/b/bin/app"));
        assert!(matches!(executable("curl"), Err(Problem::RelativePath(_))));
        assert!(matches!(executable("/bin/[a"), Err(Problem::Pattern { .. })));
    }
}
