//! The functions of the crate `waylay`.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use waylay::{
    RedirectRecords, query_original_destination, query_redirect_context, query_redirect_records,
    redirect_state, set_redirect_records,
};
use waylay_conformance::{Ancillary, Code, Need, Overlapped};
use waylay_core::RedirectState;

use crate::lab::Calls;

pub(crate) struct RustApi;

impl Calls for RustApi {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        if need == Need::Buffers {
            return Some("the functions return values and take no buffers");
        }
        if need == Need::Datagrams {
            return Some("datagrams come by flow, and a flow with what belongs to it");
        }
        (need == Need::Overlapped).then_some("the functions return when they are done")
    }

    fn socket(&self, domain: Domain) -> Socket {
        Socket::new(domain, Type::STREAM, None).unwrap()
    }

    fn query_records(&self, socket: &Socket) -> Result<Vec<u8>, Code> {
        let records = query_redirect_records(socket).map_err(|error| Code(error.winsock_code()))?;
        Ok(records.as_bytes().to_vec())
    }

    fn probe_records(&self, _socket: &Socket) -> (Code, usize) {
        panic!("it has no buffers")
    }

    fn query_records_overlapped(&self, _socket: &Socket) -> (Vec<u8>, Overlapped) {
        panic!("nothing is overlapped")
    }

    fn query_context(&self, socket: &Socket) -> Result<u64, Code> {
        let context = query_redirect_context(socket).map_err(|error| Code(error.winsock_code()))?;
        Ok(context.application().cgroup)
    }

    fn original_destination(&self, socket: &Socket) -> SocketAddr {
        query_original_destination(socket).unwrap()
    }

    fn set_records(&self, socket: &Socket, records: &[u8]) -> Code {
        let set = set_redirect_records(socket, &RedirectRecords::from_bytes(records));
        set.map_or_else(|error| Code(error.winsock_code()), |()| Code::OK)
    }

    fn let_flows_be_idle(&self, _socket: &Socket) {
        panic!("it gives flows")
    }

    fn receive_datagram(&self, _socket: &Socket) -> Vec<Ancillary> {
        panic!("it gives flows")
    }

    fn state(&self, socket: &Socket, service: u32) -> RedirectState {
        redirect_state(socket, service).unwrap()
    }
}
