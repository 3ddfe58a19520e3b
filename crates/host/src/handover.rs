//! A descriptor on its way from one process to another, over a Unix socket (unix(7), `SCM_RIGHTS`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Gives it away.
pub(crate) fn give(by: &OwnedFd, descriptor: OwnedFd) -> io::Result<()> {
    let given = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&given)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(by, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Takes what the other end gives; `UnexpectedEof` if that ends without.
pub(crate) fn take(by: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(by, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let given = ancillary.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut descriptors) = message else { return None };
        descriptors.next()
    });
    given.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn what_is_given_is_taken_and_what_is_not_given_is_an_error() {
        let (giver, taker) = UnixStream::pair().unwrap();
        let (giver, taker) = (OwnedFd::from(giver), OwnedFd::from(taker));
        give(&giver, File::open("/proc/self/comm").unwrap().into()).unwrap();
        let mut text = String::new();
        File::from(take(&taker).unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        drop(giver);
        assert_eq!(take(&taker).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
