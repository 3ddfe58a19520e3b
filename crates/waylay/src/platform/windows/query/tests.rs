//! These run under Wine, whose Winsock has none of the control codes, and on
//! Windows with no callout driver. Under Wine they prove that the library links,
//! that every call is made as Winsock wants it, and what follows a refusal; that
//! a redirected connection is answered as documented is proved by none of them.

use std::{
    fmt::Debug,
    net::{TcpListener, TcpStream, UdpSocket},
};

use socket2::{Domain, Socket, Type};
use windows_sys::Win32::{
    Foundation::{ERROR_INSUFFICIENT_BUFFER, ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, FWP_E_NOT_FOUND},
    Networking::WinSock::{
        IP_WFP_REDIRECT_CONTEXT, IP_WFP_REDIRECT_RECORDS, IPV6_WFP_REDIRECT_CONTEXT,
        IPV6_WFP_REDIRECT_RECORDS, WSAEACCES, WSAEFAULT, WSAEINPROGRESS, WSAEINTR, WSAEINVAL, WSAEISCONN,
        WSAENETDOWN, WSAENOBUFS, WSAENOPROTOOPT, WSAENOTCONN, WSAENOTSOCK, WSAEOPNOTSUPP, WSAEWOULDBLOCK,
    },
};

use super::*;
use crate::testing::is_wine;

#[test]
fn the_codes_and_options_are_those_that_microsoft_documents() {
    let codes = [
        (SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, 0x9800_00DC),
        (SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, 0x9800_00DD),
        (SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, 0x9800_00DE),
        (SO_ORIGINAL_DST, 0x300F),
        (IP6T_SO_ORIGINAL_DST, 0x300F),
    ];
    let options = [
        (IP_WFP_REDIRECT_RECORDS, 60),
        (IPV6_WFP_REDIRECT_RECORDS, 60),
        (IP_WFP_REDIRECT_CONTEXT, 70),
        (IPV6_WFP_REDIRECT_CONTEXT, 70),
    ];
    assert!(codes.iter().all(|(code, value)| code == value), "{codes:x?}");
    assert!(options.iter().all(|(option, value)| option == value), "{options:?}");
}

/// Every code of the tables, as `WSAGetLastError` would give it.
const CODES: [i32; 16] = [
    FWP_E_NOT_FOUND,
    ERROR_INSUFFICIENT_BUFFER.cast_signed(),
    ERROR_OPERATION_ABORTED.cast_signed(),
    ERROR_IO_PENDING.cast_signed(),
    WSAEINTR,
    WSAEACCES,
    WSAEFAULT,
    WSAEINVAL,
    WSAEWOULDBLOCK,
    WSAEINPROGRESS,
    WSAENOTSOCK,
    WSAENOPROTOOPT,
    WSAEOPNOTSUPP,
    WSAENETDOWN,
    WSAENOBUFS,
    WSAENOTCONN,
];

#[test]
fn every_code_of_the_tables_comes_back_as_it_was() {
    for code in CODES {
        let error = || io::Error::from_raw_os_error(code);
        assert_eq!(QueryError::from(error()).winsock_code(), code);
        assert_eq!(SetError::from(error()).winsock_code(), code);
    }
}

#[test]
fn the_codes_that_name_a_cause_have_a_variant_each() {
    let query = |code| QueryError::from(io::Error::from_raw_os_error(code));
    assert!(matches!(query(FWP_E_NOT_FOUND), QueryError::NotRedirected));
    assert!(matches!(query(WSAENOTCONN), QueryError::NotConnected));
    assert!(matches!(query(WSAEWOULDBLOCK), QueryError::Connecting));
    assert!(matches!(query(WSAEINVAL), QueryError::Listening));
    assert!(matches!(query(WSAENOPROTOOPT), QueryError::NotRegistered));
    assert!(matches!(query(WSAEOPNOTSUPP), QueryError::NotSupported));
    assert!(matches!(query(WSAENOTSOCK), QueryError::NotASocket));
    assert!(matches!(query(WSAEFAULT), QueryError::Fault));
    assert!(matches!(query(WSAEINTR), QueryError::Interrupted));
    assert!(matches!(query(WSAEACCES), QueryError::AccessDenied));
    assert!(matches!(query(WSAENETDOWN), QueryError::NetworkDown));
    assert!(matches!(query(WSAEINPROGRESS), QueryError::Os(_)));
    let set = |code| SetError::from(io::Error::from_raw_os_error(code));
    assert!(matches!(set(WSAEINVAL), SetError::Malformed));
    assert!(matches!(set(WSAEACCES), SetError::NotEntitled));
    assert!(matches!(set(WSAEISCONN), SetError::Connected));
    assert!(matches!(set(WSAEOPNOTSUPP), SetError::NotSupported));
    assert!(matches!(set(WSAENOTSOCK), SetError::NotASocket));
    assert!(matches!(set(WSAEFAULT), SetError::Fault));
    assert!(matches!(set(WSAEINTR), SetError::Interrupted));
    assert!(matches!(set(WSAENETDOWN), SetError::NetworkDown));
    assert!(matches!(set(WSAENOBUFS), SetError::NoRoom));
    assert!(matches!(set(WSAEINPROGRESS), SetError::Os(_)));
}

/// Both ends of a connection that nobody redirected.
fn connection(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (connected, listener.accept().unwrap().0)
}

/// That a socket nobody redirected is refused: by Wine because it does not know
/// the code, by Windows because there is no record.
fn assert_refused<T: Debug>(result: Result<T, QueryError>) {
    let error = result.unwrap_err();
    if is_wine() {
        assert!(matches!(error, QueryError::NotSupported), "{error:?}");
        assert_eq!(error.winsock_code(), 10_045);
    } else {
        use QueryError::{Listening, NotConnected, NotRedirected};
        assert!(matches!(error, NotRedirected | NotConnected | Listening), "{error:?}");
    }
}

#[test]
fn a_connection_that_nobody_redirected_is_refused_by_every_query() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (connected, accepted) = connection(address);
        for socket in [&connected, &accepted] {
            assert_refused(query_records(socket));
            assert_refused(query_chain(socket));
            assert_refused(attached(socket.as_socket()));
            assert!(query_original_destination(socket).is_err());
            assert!(query_context(socket).is_err());
        }
    }
}

#[test]
fn how_a_service_stands_to_a_connection_that_nobody_redirected() {
    let (_connected, accepted) = connection("127.0.0.1:0");
    match redirect_state(&accepted, 1) {
        Err(error) if is_wine() => assert!(matches!(error, QueryError::NotSupported), "{error:?}"),
        state => assert_eq!(state.unwrap(), RedirectState::NotRedirected),
    }
}

#[test]
fn sockets_without_a_connection_are_refused() {
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    assert_refused(query_records(&fresh));
    assert_refused(query_records(&TcpListener::bind("127.0.0.1:0").unwrap()));
    assert!(matches!(query_original_destination(&fresh), Err(QueryError::NotConnected)));
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(query_records(&datagrams).is_err());
    assert!(query_original_destination(&datagrams).is_err());
}

/// Wine refuses a control code that it does not know before it looks at the socket.
#[test]
fn a_number_that_is_no_socket_is_said_to_be_none() {
    let closed = sys::closed();
    let error = query_original_destination(&closed).unwrap_err();
    assert!(matches!(error, QueryError::NotASocket), "{error:?}");
    assert_eq!(error.winsock_code(), 10_038);
    if !is_wine() {
        assert!(matches!(query_records(&closed), Err(QueryError::NotASocket)));
        assert!(matches!(set_records(&closed, &[0; 48]), Err(SetError::NotASocket)));
    }
}

#[test]
fn invented_records_are_refused() {
    let fresh = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let error = set_records(&fresh, &[0x5a; 48]).unwrap_err();
    if is_wine() {
        assert!(matches!(error, SetError::NotSupported), "{error:?}");
        assert_eq!(error.winsock_code(), 10_045);
    } else {
        assert!(matches!(error, SetError::Malformed | SetError::NotEntitled), "{error:?}");
    }
}

/// A provider that has `len` bytes to say.
fn provider(len: usize) -> impl FnMut(&mut [u8]) -> io::Result<Answer> {
    move |answer| {
        let Some(answer) = answer.get_mut(..len) else { return Ok(Answer::Longer(len)) };
        answer.fill(7);
        Ok(Answer::Whole(len))
    }
}

#[test]
fn an_answer_of_any_length_arrives_whole() {
    for len in [0, 1, FIRST_BUFFER, FIRST_BUFFER + 1, MOST_BYTES] {
        assert_eq!(whole(provider(len)).unwrap(), vec![7; len]);
    }
}

#[test]
fn an_answer_that_grows_in_between_is_asked_for_again() {
    let mut len = FIRST_BUFFER;
    let answer = whole(|answer| {
        len += usize::from(len < FIRST_BUFFER + 3);
        provider(len)(answer)
    });
    assert_eq!(answer.unwrap().len(), FIRST_BUFFER + 3);
}

#[test]
fn a_length_that_makes_no_sense_ends_the_asking() {
    for needed in [0, FIRST_BUFFER, MOST_BYTES + 1, u32::MAX as usize] {
        let error = whole(|_| Ok(Answer::Longer(needed))).unwrap_err();
        assert!(matches!(error, QueryError::ShortBuffer { needed: told } if told == needed), "{error:?}");
        assert_eq!(error.winsock_code(), ERROR_INSUFFICIENT_BUFFER.cast_signed());
    }
}

#[test]
fn each_context_has_a_flow_of_its_own_and_what_was_attached() {
    let destination = "192.0.2.1:80".parse().unwrap();
    let [first, second] = [vec![1, 2, 3], Vec::new()].map(|attached| context::new(destination, attached));
    assert_eq!(first.attached(), [1, 2, 3]);
    assert!(second.attached().is_empty());
    assert_ne!(first.flow(), second.flow());
    assert!(!first.application().is_known());
}
