//! The keys of policy files: the reference that reading, suggestions and documentation share.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands behind it.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableKind {
    /// As a heading of it is written.
    pub heading: &'static str,
    /// What it is, for messages: "a filter has no key …".
    pub what: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, value: &'static str, meaning: &'static str) -> Key {
    Key { name, value, meaning }
}

/// The top of a file.
pub const TOP: TableKind = TableKind {
    heading: "(top of the file)",
    what: "the policy",
    keys: &[
        key(
            "unredirectable",
            "`\"block\"`, `\"permit\"`",
            "What becomes of sockets that cannot be redirected (UDP-Lite, SCTP, ICMP, raw, packet, vsock, …; without root those bound to a device), and of datagrams to several hosts, of applications that a redirect filter covers. Default: `\"block\"`.",
        ),
        key(
            "other_namespaces",
            "`\"permit\"`, `\"block\"`",
            "What becomes of connections from other network namespaces, which cannot reach the services, where no filter with `network_namespace` says anything of them. Default: `\"permit\"`.",
        ),
        key(
            "resolvers",
            "address, or array of them",
            "Whose answers names for `host` are learned from, with port 53 if none is given: `\"192.0.2.53\"`, `\"127.0.0.1:5353\"`. Default: those in `/etc/resolv.conf`, and systemd-resolved's `127.0.0.53` and `127.0.0.54`.",
        ),
        key(
            "order",
            "array of names",
            "Services, each before the next: what `before` of each would say. Each file may have one.",
        ),
        key(
            "existing",
            "`\"leave\"`, `\"reset\"`",
            "What becomes of connections that are older than the policy, and that it would have redirected or refused: they go on uninspected, or are reset. Default: `\"leave\"`.",
        ),
        key(
            "override_sandbox",
            "`true`, `false`",
            "Whether connections are redirected that come from a sandbox of somebody else's: a cgroup in what waylay watches to which, or to one above, programs are attached that let its packets pass or not, as systemd's `IPAddressDeny=` and `RestrictNetworkInterfaces=` make them. A service would dial where the sandbox does not let the application. Default: `false`.",
        ),
        key("service", "tables", "The services, by name: `[service.NAME]`."),
        key("sublayer", "tables", "The sublayers, by name: `[sublayer.NAME]`."),
        key("filter", "array of tables", "The filters: `[[filter]]`."),
    ],
};

/// A service.
pub const SERVICE: TableKind = TableKind {
    heading: "[service.NAME]",
    what: "a service",
    keys: &[
        key("run", "`\"log\"`, `\"scan\"`", "A service that comes with waylay."),
        key(
            "command",
            "string",
            "A program that cooperates, started by the shell; together with `adopt`, how the proxy is started.",
        ),
        key(
            "adopt",
            "address, or array of them",
            "An unmodified transparent proxy, and where it listens: `\"127.0.0.1:5000\"`.",
        ),
        key("unit", "string", "With `adopt`: it is what runs in the cgroup of this systemd unit."),
        key(
            "cgroup",
            "string",
            "With `adopt`: it is what runs in this cgroup, a path below the root of the hierarchy.",
        ),
        key("exe", "string", "With `adopt`: it is what runs this executable."),
        key("user", "string or number", "With `adopt`: it is what runs as this user."),
        key(
            "destination",
            "`\"option\"`, `\"local\"`, `\"packet\"`",
            "With `adopt`: it finds the original destination by `SO_ORIGINAL_DST`, as with REDIRECT, or in the local address of its socket, as with TPROXY; `\"packet\"`: likewise, and its datagrams say the destination itself and not a token, for those that tell it to somebody else (Linux 6.6, [a program on the loopback](adopt/README.md#told-to-somebody-else)). Default: `\"option\"`.",
        ),
        key(
            "protocol",
            "`\"tcp\"`, `\"udp\"`, or an array",
            "What it takes. Default: both for those that come with waylay, TCP for others.",
        ),
        key("before", "name, or array of them", "Services that see a connection after this one."),
        key("after", "name, or array of them", "Services that see a connection ahead of this one."),
        key(
            "on_failure",
            "`\"closed\"`, `\"open\"`",
            "What happens to connections while it is absent: refused, or on without it. Default: `\"closed\"`.",
        ),
    ],
};

/// A sublayer.
pub const SUBLAYER: TableKind = TableKind {
    heading: "[sublayer.NAME]",
    what: "a sublayer",
    keys: &[key("weight", "0 to 65535", "The higher, the earlier it is heard. Default: 0.")],
};

/// A filter.
pub const FILTER: TableKind = TableKind {
    heading: "[[filter]]",
    what: "a filter",
    keys: &[
        key("name", "string", "What it is called in traces; else it is known by its file and line."),
        key(
            "action",
            "`\"redirect\"`, `\"permit\"`, `\"block\"`, `\"continue\"`",
            "What it does with what it matches. Required.",
        ),
        key("service", "name", "Of `redirect`, required: where to."),
        key("sublayer", "name", "Of the others, required: where it is heard."),
        key(
            "right",
            "`\"soft\"`, `\"hard\"`",
            "Of `permit` and `block`: whether lower sublayers may override it. Default: soft for `permit`, hard for `block`.",
        ),
        key(
            "errno",
            "name",
            "Of `block`: what connect() returns, such as `\"ECONNREFUSED\"`. Default: `\"EACCES\"`.",
        ),
        key(
            "lifetime",
            "`\"persistent\"`, `\"boot\"`",
            "When it is in force: while the policy is, or before that, from early boot until the daemon takes over (filters that permit or block). Default: `\"persistent\"`.",
        ),
        key(
            "weight",
            "number",
            "The higher, the earlier it is asked among the filters of its service or sublayer; filters of one weight are asked as they come in the files. Default: 0.",
        ),
        key(
            "if",
            "table of conditions",
            "What must hold: of each condition one value, of all conditions together.",
        ),
        key("unless", "table of conditions", "What must not hold: no value of any condition."),
    ],
};

/// Conditions.
pub const CONDITIONS: TableKind = TableKind {
    heading: "[filter.if], [filter.unless]",
    what: "a table of conditions",
    keys: &[
        key("protocol", "`\"tcp\"`, `\"udp\"`", "The transport protocol."),
        key(
            "family",
            "`\"ipv4\"`, `\"ipv6\"`",
            "The family of the original destination; IPv4-mapped addresses are IPv4.",
        ),
        key("remote", "address or prefix", "The original destination: `\"192.0.2.1\"`, `\"2001:db8::/32\"`."),
        key("port", "number, or `\"first-last\"`", "The port of the original destination."),
        key(
            "local",
            "address or prefix",
            "The source, where the caller has bound one; what is not bound is not asked.",
        ),
        key(
            "host",
            "name, or `\"*.\"` and a name",
            "A name by which the original application has asked for the destination: `\"example.com\"`; `\"*.example.com\"` is all names below. Not what a connection may pass by: in `unless` of `permit` and in `if` of others.",
        ),
        key(
            "network_namespace",
            "`\"own\"`, `\"host\"`, or path",
            "Of filters in sublayers: the network namespace that the connection is made in: waylay's own, that of process 1, or another one by a path such as `\"/run/netns/blue\"`. Without it a filter is about waylay's own.",
        ),
        key(
            "exe",
            "path or pattern",
            "The original application's executable. `*` and `?` stay within a part of the path, `**` is any number of parts.",
        ),
        key("user", "name or number", "The original application's real user."),
        key(
            "group",
            "name or number",
            "The original application's real group; supplementary groups do not count.",
        ),
        key("command", "string", "The original application's command name, which it can change at will."),
        key(
            "cgroup",
            "path",
            "A cgroup that the original application is in, itself or below it: a path below the root of the hierarchy.",
        ),
        key(
            "unit",
            "string",
            "A systemd unit that the original application is in: `\"cron.service\"`, `\"user.slice\"`. Together with `cgroup` and `container` one list.",
        ),
        key(
            "container",
            "string",
            "A container that the original application is in, by its id or the first twelve or more digits of it.",
        ),
        key(
            "redirected",
            "boolean",
            "Of filters in sublayers, in `if`: whether this leg will go to a service.",
        ),
        key("proxied", "boolean", "Of filters in sublayers, in `if`: whether this leg comes from a service."),
        key(
            "via",
            "table",
            "The same about the process that dials this very leg: `exe`, `user`, `group`, `command`, `cgroup`, `unit`, `container`.",
        ),
    ],
};

/// Conditions on the process that dials.
pub const VIA: TableKind = TableKind {
    heading: "via",
    what: "`via`",
    keys: &[
        key("exe", "path or pattern", "Its executable."),
        key("user", "name or number", "Its real user."),
        key("group", "name or number", "Its real group."),
        key("command", "string", "Its command name."),
        key("cgroup", "path", "A cgroup that it is in."),
        key("unit", "string", "A systemd unit that it is in."),
        key("container", "string", "A container that it is in."),
    ],
};

/// All of them, in reading order.
pub const TABLES: [TableKind; 6] = [TOP, SERVICE, SUBLAYER, FILTER, CONDITIONS, VIA];

/// The reference as Markdown, a table for each kind.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for table in TABLES {
        out += &format!("### `{}`\n\n| Key | Value | Meaning |\n|---|---|---|\n", table.heading);
        for Key { name, value, meaning } in table.keys {
            out += &format!("| `{name}` | {value} | {meaning} |\n");
        }
        out += "\n";
    }
    out
}
