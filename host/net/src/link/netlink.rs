//! Talking rtnetlink inside a namespace.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec};

use super::LinkError;
use crate::netns::NetNs;

/// One interface of a namespace, with what its errors must name.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) netns: PathBuf,
    pub(super) name: String,
}

impl Link {
    pub(super) fn new(netns: &NetNs, name: &str) -> Result<Self, LinkError> {
        check_name(name)?;
        Ok(Self { netns: netns.path().to_owned(), name: name.to_owned() })
    }

    pub(super) fn io<E: Into<io::Error>>(&self, action: &'static str) -> impl FnOnce(E) -> LinkError {
        move |source| LinkError::Io {
            netns: self.netns.clone(),
            name: self.name.clone(),
            action,
            source: source.into(),
        }
    }

    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
        move |error| self.io(action)(io_error(error))
    }

    /// What the kernel says of it.
    pub(super) async fn get(&self, handle: &Handle) -> Result<LinkMessage, LinkError> {
        match handle.link().get().match_name(self.name.clone()).execute().try_next().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.missing()),
            Err(error) if is(&error, libc::ENODEV) => Err(self.missing()),
            Err(error) => Err(self.failed("look at it")(error)),
        }
    }

    pub(super) fn missing(&self) -> LinkError {
        LinkError::Missing { netns: self.netns.clone(), name: self.name.clone() }
    }
}

/// `dev_valid_name` of net/core/dev.c; the percent sign is a template for the kernel's own numbering.
pub(crate) fn check_name(name: &str) -> Result<(), LinkError> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte);
    if !(1..libc::IFNAMSIZ).contains(&name.len()) || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(LinkError::BadName { name: name.chars().take(64).collect() });
    }
    Ok(())
}

/// Whether the kernel answered with this errno.
pub(super) fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.to_io().raw_os_error() == Some(errno))
}

pub(super) fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + 'a>>;

/// Runs `work` inside the namespace, with a netlink socket of that namespace.
pub(super) async fn inside<T, F>(netns: &NetNs, link: &Link, work: F) -> Result<T, LinkError>
where
    T: Send + 'static,
    F: FnOnce(&Handle) -> Work<'_, T> + Send + 'static,
{
    let link = link.clone();
    netns.run(move || with_handle(work).map_err(link.io("open a netlink socket"))?).await?
}

/// `lo` of the calling thread's namespace.
pub(crate) fn set_loopback_up() -> io::Result<()> {
    with_handle(|handle| {
        Box::pin(async { handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await })
    })?
    .map_err(io_error)
}

/// A netlink socket belongs to the namespace of the thread that opens it.
fn with_handle<T>(work: impl FnOnce(&Handle) -> Pin<Box<dyn Future<Output = T> + '_>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(work(&handle).await)
    })
}
