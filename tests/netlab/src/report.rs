//! The lines of `-o json`, read as somebody outside of waylay would.

use std::net::SocketAddr;

use serde_json::Value;

/// One connection as one service reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Report {
    pub service: String,
    pub flow: u64,
    pub application: String,
    pub pid: u32,
    pub original_destination: SocketAddr,
    pub protocol: String,
    pub host: Option<String>,
    /// `udp` of a flow of datagrams.
    pub transport: Option<String>,
    /// Datagrams to the destination and to the application.
    pub datagrams: Option<(u64, u64)>,
    /// Questions to the DNS: name, type and rcode.
    pub queries: Vec<(String, String, Option<String>)>,
    pub bytes_to_destination: u64,
    pub bytes_to_application: u64,
    pub chain: Vec<String>,
    pub verdict: String,
    pub pattern: Option<String>,
    pub direction: Option<String>,
    pub error: Option<String>,
}

impl Report {
    /// Reads one line.
    ///
    /// # Panics
    /// If it is not a report.
    pub fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["time"].is_string() && value["duration_us"].is_u64(), "{line}");
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        let required = |name: &str| text(name).unwrap_or_else(|| panic!("{name}: {line}"));
        let chain = value["chain"].as_array().unwrap_or_else(|| panic!("chain: {line}"));
        Self {
            service: required("service"),
            flow: number("flow"),
            application: required("application"),
            pid: u32::try_from(number("pid")).unwrap(),
            original_destination: required("original_destination").parse().unwrap(),
            protocol: required("protocol"),
            host: text("host"),
            transport: text("transport"),
            datagrams: text("transport")
                .map(|_| (number("datagrams_to_destination"), number("datagrams_to_application"))),
            queries: value["queries"].as_array().into_iter().flatten().map(query).collect(),
            bytes_to_destination: number("bytes_to_destination"),
            bytes_to_application: number("bytes_to_application"),
            chain: chain.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            verdict: required("verdict"),
            pattern: text("pattern"),
            direction: text("direction"),
            error: text("error"),
        }
    }

    /// Reads all lines.
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines().map(Self::parse).collect()
    }
}

fn query(value: &Value) -> (String, String, Option<String>) {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    (text("name").unwrap(), text("type").unwrap(), text("rcode"))
}
