//! The other end of the control socket.

use std::{
    collections::VecDeque,
    io,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::protocol::{Answer, Failure, Happening, Message, Request};

/// Why a daemon does not answer, or not what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no daemon listens on {} (waylayd --help says how to start one)", path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has gone, or something else is there.
    #[error("the daemon does not answer as one")]
    Conversation(#[source] io::Error),
    /// It says no.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// A connection to a daemon: a session, which ends with it.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    /// What has happened while an answer was waited for.
    happened: VecDeque<Happening>,
}

/// The way to ask something while somebody else reads what is said.
#[derive(Debug)]
pub struct Requests(UnixStream);

impl Requests {
    /// Asks, and waits for nothing.
    ///
    /// # Errors
    /// [`ClientError::Conversation`].
    pub fn send(&self, request: &Request) -> Result<(), ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ClientError::Conversation(error.into()))?;
        line.push(b'\n');
        (&self.0).write_all(&line).map_err(ClientError::Conversation)
    }
}

impl Client {
    /// Connects to the daemon whose socket is at this path.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::NoDaemon { path: path.to_owned(), source })?;
        Ok(Self { reader: BufReader::new(stream), happened: VecDeque::new() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        // Whoever is turned away is told why before the connection ends.
        let sent = self.requests()?.send(request);
        loop {
            match (self.read(), &sent) {
                (Ok(Some(Message::Answer(answer))), _) => return Ok(answer),
                (Ok(Some(Message::Error(failure))), _) => return Err(failure.into()),
                (Ok(Some(Message::Event(happening))), _) => self.happened.push_back(happening),
                (Ok(None), _) => return Err(ClientError::Conversation(io::ErrorKind::UnexpectedEof.into())),
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Another way to ask, on the same connection.
    ///
    /// # Errors
    /// If there can be no other descriptor of it.
    pub fn requests(&self) -> Result<Requests, ClientError> {
        self.reader.get_ref().try_clone().map(Requests).map_err(ClientError::Conversation)
    }

    /// The next thing that happens, of which it has been asked to be told; `None` when the daemon has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn next_happening(&mut self) -> Result<Option<Happening>, ClientError> {
        if let Some(happening) = self.happened.pop_front() {
            return Ok(Some(happening));
        }
        loop {
            match self.read()? {
                Some(Message::Event(happening)) => return Ok(Some(happening)),
                Some(Message::Answer(_)) => {}
                Some(Message::Error(failure)) => return Err(failure.into()),
                None => return Ok(None),
            }
        }
    }

    fn read(&mut self) -> Result<Option<Message>, ClientError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).map_err(ClientError::Conversation)? {
            0 => Ok(None),
            _ => {
                serde_json::from_str(&line).map(Some).map_err(|error| ClientError::Conversation(error.into()))
            }
        }
    }
}
