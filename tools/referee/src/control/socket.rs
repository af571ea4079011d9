//! A Unix socket through which a running Referee is told and asked things: a client writes one line and reads one.
//!
//! Made on main before privileges are given up, served by the control thread. Only the owner of the process may connect.
//! Carries lines; what they mean is `command`'s.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;

/// Where it is unless another place is named.
pub const DEFAULT_PATH: &str = "/run/referee/referee.sock";
/// Longest line taken, bytes.
const LINE: u64 = 64 << 10;
/// How long a client may take to say what it wants, or to take the answer: others wait.
const TURN: Duration = Duration::from_secs(1);

/// A socket that listens; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Of its file: by the end another run may have put its own there.
    identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Listens there, where only the owner may connect. A socket that an earlier run left behind gives way.
///
/// # Errors
/// Somebody listens there, or may; or the file can't be made.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    clear(path);
    // The mode is right from the first moment. No other thread makes files yet.
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    bound.map_err(|error| match (error.kind(), fs::symlink_metadata(path)) {
        (io::ErrorKind::AddrInUse, Ok(meta)) => io::Error::new(error.kind(), in_the_way(path, &meta)),
        _ => error,
    })
}

/// Removes a socket that nobody listens at any more.
pub fn clear(path: &Path) {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if socket && UnixStream::connect(path).is_err_and(refused) {
        let _ = fs::remove_file(path);
    }
}

/// Why there can't be a socket.
fn in_the_way(path: &Path, meta: &fs::Metadata) -> String {
    let place = path.display();
    match UnixStream::connect(path) {
        Ok(_) => "another run listens there".to_owned(),
        Err(_) if !meta.file_type().is_socket() => "there is something that is no socket".to_owned(),
        Err(error) => format!(
            "a socket of another user (uid {}) is there, and whether anybody listens can't be told ({error}); if nobody \
             does: rm {place}",
            meta.uid()
        ),
    }
}

impl Socket {
    /// Makes it. One that an earlier run left behind gives way.
    ///
    /// # Errors
    /// Somebody listens there, or the file can't be made.
    pub fn bind(path: &Path) -> io::Result<Socket> {
        if path == Path::new(DEFAULT_PATH)
            && let Some(folder) = path.parent().filter(|folder| !folder.exists())
        {
            fs::DirBuilder::new().mode(0o755).create(folder)?;
        }
        let listener = listen(path)?;
        listener.set_nonblocking(true)?;
        Ok(Socket { listener, identity: identity(path), path: path.to_path_buf() })
    }

    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Serves those who wait, one after the other: `answer` makes a line of a line.
    pub fn serve(&self, mut answer: impl FnMut(&str) -> String) {
        while let Ok((client, _)) = self.listener.accept() {
            // One that has gone, or says nothing, gets no answer.
            let _ = Socket::exchange(client, &mut answer);
        }
    }

    fn exchange(client: UnixStream, answer: &mut impl FnMut(&str) -> String) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(TURN))?;
        client.set_write_timeout(Some(TURN))?;
        let mut line = String::new();
        BufReader::new((&client).take(LINE)).read_line(&mut line)?;
        let mut said = answer(line.trim());
        said.push('\n');
        (&client).write_all(said.as_bytes())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_line_for_a_line_and_nothing_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // Left behind by one that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700 & 0o777);
        assert_eq!(Socket::bind(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"{\"a\":1}\n").unwrap();
        let gone = UnixStream::connect(&path).unwrap();
        drop(gone);
        socket.serve(|line| format!("<{line}>"));
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "<{\"a\":1}>\n");
        drop(socket);
        assert!(!path.exists());
    }
}
