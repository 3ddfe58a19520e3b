//! Conditions.

use toml::de::DeValue;
use waylay_core::{Family, HostPattern, PortRange, Prefix, Protocol};

use super::table::{Problems, Scalar, Table, boolean, string, within, word, wrong_type};
use crate::declaration::{
    Account, CgroupName, ConditionDeclarations, ExePattern, NamespaceName, ProcessDeclarations, UnitName,
};
use crate::keys::{CONDITIONS, VIA};
use crate::problem::{Diagnostic, Problem};
use crate::source::Located;
use crate::values;

/// What one table of conditions says.
#[derive(Default)]
pub(super) struct Conditions {
    pub(super) lists: ConditionDeclarations,
    pub(super) flags: Flags,
}

/// Conditions that are no lists.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) redirected: Option<bool>,
    pub(super) proxied: Option<bool>,
}

pub(super) fn read(filter: &Table<'_>, key: &'static str, problems: &mut Problems) -> Conditions {
    let Some(table) = filter.table(key, CONDITIONS, problems) else { return Conditions::default() };
    if key == "unless" {
        table.misplaced(&["redirected", "proxied"], "`if`, where it may be false,", problems);
    }
    let lists = ConditionDeclarations {
        protocol: table.list("protocol", problems, protocol).map(Box::new),
        family: table.list("family", problems, family).map(Box::new),
        remote: table.list("remote", problems, prefix).map(Box::new),
        port: table.list("port", problems, ports).map(Box::new),
        local: table.list("local", problems, prefix).map(Box::new),
        host: table.list("host", problems, host).map(Box::new),
        namespace: table.list("network_namespace", problems, namespace).map(Box::new),
        application: process(&table, problems),
        via: table.table("via", VIA, problems).map(|via| process(&via, problems)).unwrap_or_default(),
    };
    let flags = Flags {
        redirected: table.one("redirected", problems, boolean),
        proxied: table.one("proxied", problems, boolean),
    };
    Conditions { lists, flags }
}

fn process(table: &Table<'_>, problems: &mut Problems) -> ProcessDeclarations {
    ProcessDeclarations {
        exe: table.list("exe", problems, executable).map(Box::new),
        user: table.list("user", problems, account).map(Box::new),
        group: table.list("group", problems, account).map(Box::new),
        command: commands(table, problems).map(Box::new),
        cgroup: cgroups(table, problems).map(Box::new),
    }
}

/// Those that the kernel cuts are matched as it cuts them, and reported.
fn commands(table: &Table<'_>, problems: &mut Problems) -> Option<Located<Vec<waylay_core::CommandName>>> {
    let read = |value: Scalar<'_>| {
        let text = string(value)?;
        let (kept, problem) = values::command(text.value);
        Ok((kept, problem.map(|problem| problem.at(&text.span))))
    };
    let commands = table.list("command", problems, read)?;
    let (kept, cut): (Vec<_>, Vec<_>) = commands.value.into_iter().unzip();
    problems.extend(cut.into_iter().flatten());
    Some(Located { value: kept, span: commands.span })
}

/// Paths, units and containers are one list: each is a way to name a cgroup.
fn cgroups(table: &Table<'_>, problems: &mut Problems) -> Option<Located<Vec<Located<CgroupName>>>> {
    let lists = [
        table.list("cgroup", problems, |value| Ok(cgroup(value)?.map(CgroupName::Path))),
        table.list("unit", problems, |value| Ok(unit(value)?.map(CgroupName::Unit))),
        table.list("container", problems, container),
    ];
    lists.into_iter().flatten().reduce(|mut all, more| {
        all.value.extend(more.value);
        all
    })
}

pub(super) fn protocol(value: Scalar<'_>) -> Result<Protocol, Diagnostic> {
    word(value, &["tcp", "udp"], &[Protocol::Tcp, Protocol::Udp])
}

fn family(value: Scalar<'_>) -> Result<Family, Diagnostic> {
    word(value, &["ipv4", "ipv6"], &[Family::Ipv4, Family::Ipv6])
}

fn prefix(value: Scalar<'_>) -> Result<Prefix, Diagnostic> {
    let text = string(value)?;
    values::prefix(text.value).map_err(|(problem, help)| problem.at(&text.span).help(help))
}

fn host(value: Scalar<'_>) -> Result<HostPattern, Diagnostic> {
    let text = string(value)?;
    values::host(text.value).map_err(|problem| problem.at(&text.span))
}

fn namespace(value: Scalar<'_>) -> Result<Located<NamespaceName>, Diagnostic> {
    let text = string(value)?;
    let namespace = values::namespace(text.value).map_err(|problem| problem.at(&text.span))?;
    Ok(Located { value: namespace, span: text.span })
}

fn ports(value: Scalar<'_>) -> Result<PortRange, Diagnostic> {
    let range = match value.value {
        DeValue::Integer(number) => within(number, u16::MAX.into())
            .map(|port| PortRange::single(u16::try_from(port).unwrap_or(u16::MAX))),
        DeValue::String(text) => values::ports(text),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            return Err(wrong_type("a port or a range of ports", &value));
        }
    };
    range.map_err(|problem| problem.at(&value.span))
}

pub(super) fn executable(value: Scalar<'_>) -> Result<Located<ExePattern>, Diagnostic> {
    let text = string(value)?;
    let pattern = values::executable(text.value).map_err(|problem| {
        let bare = matches!(problem, Problem::RelativePath(_)) && !text.value.contains('/');
        let help =
            bare.then(|| format!("\"/**/{0}\" is {0} anywhere, and `command = {0:?}` its name", text.value));
        problem.at(&text.span).help(help)
    })?;
    Ok(Located { value: pattern, span: text.span })
}

pub(super) fn account(value: Scalar<'_>) -> Result<Located<Account>, Diagnostic> {
    let account = match value.value {
        DeValue::Integer(number) => {
            let number = within(number, u32::MAX.into()).map_err(|problem| problem.at(&value.span))?;
            Account::Number(u32::try_from(number).unwrap_or(u32::MAX))
        }
        DeValue::String(name) => Account::Named(name.to_string()),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            return Err(wrong_type("a name or a number", &value));
        }
    };
    Ok(Located { value: account, span: value.span })
}

/// A cgroup by its path.
pub(super) fn cgroup(value: Scalar<'_>) -> Result<Located<String>, Diagnostic> {
    let text = string(value)?;
    let path = values::cgroup(text.value).map_err(|problem| problem.at(&text.span))?;
    Ok(Located { value: path, span: text.span })
}

pub(super) fn unit(value: Scalar<'_>) -> Result<Located<UnitName>, Diagnostic> {
    let text = string(value)?;
    let unit = values::unit(text.value).map_err(|(problem, help)| problem.at(&text.span).help(help))?;
    Ok(Located { value: unit, span: text.span })
}

fn container(value: Scalar<'_>) -> Result<Located<CgroupName>, Diagnostic> {
    let text = string(value)?;
    let id = values::container(text.value).map_err(|problem| {
        let help = "12 to 64 digits of its id, from 0 to 9 and a to f".to_owned();
        problem.at(&text.span).help(help)
    })?;
    Ok(Located { value: CgroupName::Container(id), span: text.span })
}
