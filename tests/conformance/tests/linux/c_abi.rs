//! The functions that libwaylay_ws2 exports, called as a program in C calls them.

use std::net::SocketAddr;

use socket2::{Domain, SockRef, Socket};
use waylay_abi::Context;
use waylay_conformance::{Ancillary, Code, Need, Overlapped};
use waylay_core::RedirectState;
use waylay_ws2::abi::{
    SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS,
    SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, SIO_WAYLAY_FLOW_IDLE,
};
use zerocopy::FromBytes;

use crate::{lab::Calls, sys};

/// As long as the documentation proposes for a first try.
const BUFFER: usize = 1024;
/// `IP_WFP_REDIRECT_RECORDS` and `…_CONTEXT`, as the headers have them.
const RECORDS: i32 = 0x57_593c;
const CONTEXT: i32 = 0x57_5946;

pub(crate) struct CAbi;

impl CAbi {
    pub(crate) fn new() -> Self {
        sys::start_up();
        Self
    }
}

impl Calls for CAbi {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        (need == Need::States).then_some("no control code tells a state: redirectors ask, in the kernel")
    }

    fn socket(&self, domain: Domain) -> Socket {
        sys::socket(domain.into())
    }

    fn query_records(&self, socket: &Socket) -> Result<Vec<u8>, Code> {
        query(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS)
    }

    fn probe_records(&self, socket: &Socket) -> (Code, usize) {
        sys::ioctl(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, &mut [], &mut [])
    }

    fn query_records_overlapped(&self, socket: &Socket) -> (Vec<u8>, Overlapped) {
        let mut records = vec![0; BUFFER];
        let code = SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS;
        let (outcome, size) = sys::ioctl_overlapped(socket, code, &mut records);
        records.truncate(size);
        (records, outcome)
    }

    fn query_context(&self, socket: &Socket) -> Result<u64, Code> {
        let bytes = query(socket, SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT)?;
        let Ok(context) = Context::read_from_bytes(&bytes) else { panic!("{} bytes", bytes.len()) };
        Ok(context.application.cgroup)
    }

    /// Not in the library, but what its users call: `SO_ORIGINAL_DST`.
    fn original_destination(&self, socket: &Socket) -> SocketAddr {
        SockRef::from(socket).original_dst_v4().unwrap().as_socket().unwrap()
    }

    fn set_records(&self, socket: &Socket, records: &[u8]) -> Code {
        let mut records = records.to_vec();
        let (code, size) = sys::ioctl(socket, SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, &mut records, &mut []);
        assert_eq!(size, 0, "it has no output");
        code
    }

    fn let_flows_be_idle(&self, socket: &Socket) {
        let mut at_once = 0_u32.to_ne_bytes();
        assert_eq!(sys::ioctl(socket, SIO_WAYLAY_FLOW_IDLE, &mut at_once, &mut []), (Code::OK, 0));
    }

    fn receive_datagram(&self, socket: &Socket) -> Vec<Ancillary> {
        let control = sys::receive_message(socket);
        let kinds = sys::control_kinds(&control);
        let known = [(RECORDS, Ancillary::Records), (CONTEXT, Ancillary::Context)];
        known.into_iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, what)| what).collect()
    }

    fn state(&self, _socket: &Socket, _service: u32) -> RedirectState {
        panic!("no control code tells it")
    }
}

fn query(socket: &Socket, code: u32) -> Result<Vec<u8>, Code> {
    let mut answer = vec![0; BUFFER];
    let (code, size) = sys::ioctl(socket, code, &mut [], &mut answer);
    answer.truncate(size);
    if code == Code::OK { Ok(answer) } else { Err(code) }
}
