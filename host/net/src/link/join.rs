//! The join of two interfaces: what one receives the other sends.

use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle};

use super::LinkError;
use super::netlink::{Link, inside, is};
use crate::netns::NetNs;

/// The ingress qdisc's own handle, `ffff:`.
const INGRESS: u32 = 0xffff_0000;

/// `ETH_P_ALL` of include/uapi/linux/if_ether.h, in network byte order as tc has protocols.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();

/// The kernel tears qdiscs and filters down in the background and answers EBUSY meanwhile.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Joins two interfaces of the namespace both ways: every frame that one receives leaves by the other, before the
/// namespace's own stack sees it (tc-mirred(8)). When it fails, neither is changed.
pub async fn join(netns: &NetNs, one: &str, other: &str) -> Result<(), LinkError> {
    let (one, other) = (Link::new(netns, one)?, Link::new(netns, other)?);
    let link = one.clone();
    inside(netns, &link, move |handle| Box::pin(async move { join_both(handle, &one, &other).await })).await
}

/// Undoes [`join`] for whichever of the two interfaces is still there. Idempotent.
pub async fn separate(netns: &NetNs, one: &str, other: &str) -> Result<(), LinkError> {
    let (one, other) = (Link::new(netns, one)?, Link::new(netns, other)?);
    let link = one.clone();
    inside(netns, &link, move |handle| {
        Box::pin(async move {
            for link in [&one, &other] {
                match link.get(handle).await {
                    Ok(message) => remove_ingress(handle, link, message.header.index).await?,
                    Err(LinkError::Missing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    })
    .await
}

async fn join_both(handle: &Handle, one: &Link, other: &Link) -> Result<(), LinkError> {
    let (from, to) = (one.get(handle).await?.header.index, other.get(handle).await?.header.index);
    add_ingress(handle, one, from).await?;
    if let Err(error) = add_ingress(handle, other, to).await {
        undo(handle, one, from).await;
        return Err(error);
    }
    for (link, from, to) in [(one, from, to), (other, to, from)] {
        if let Err(error) = redirect(handle, link, from, to).await {
            undo(handle, one, from).await;
            undo(handle, other, to).await;
            return Err(error);
        }
    }
    Ok(())
}

async fn undo(handle: &Handle, link: &Link, index: u32) {
    if let Err(error) = remove_ingress(handle, link, index).await {
        tracing::warn!(%error, "an ingress qdisc remains");
    }
}

/// Runs `$request` until the kernel is not busy any more.
macro_rules! while_busy {
    ($request:expr) => {{
        let mut tries = 1;
        loop {
            match $request.await {
                Err(error) if is(&error, libc::EBUSY) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                result => break result,
            }
        }
    }};
}

async fn add_ingress(handle: &Handle, link: &Link, index: u32) -> Result<(), LinkError> {
    let index = signed(link, index)?;
    match while_busy!(handle.qdisc().add(index).ingress().execute()) {
        Err(error) if is(&error, libc::EEXIST) => {
            Err(LinkError::InUse { netns: link.netns.clone(), name: link.name.clone() })
        }
        result => result.map_err(link.failed("add an ingress qdisc (CONFIG_NET_SCH_INGRESS)")),
    }
}

async fn redirect(handle: &Handle, link: &Link, from: u32, to: u32) -> Result<(), LinkError> {
    let from = signed(link, from)?;
    while_busy!(async {
        let filter = handle.traffic_filter(from).add().parent(INGRESS).protocol(EVERY_PROTOCOL);
        filter.redirect(to)?.execute().await
    })
    .map_err(link.failed("redirect its frames (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED)"))
}

async fn remove_ingress(handle: &Handle, link: &Link, index: u32) -> Result<(), LinkError> {
    let index = signed(link, index)?;
    let ours = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress");
    let mut qdiscs = handle.qdisc().get().index(index).ingress().execute();
    let mut found = false;
    while let Some(qdisc) = qdiscs.try_next().await.map_err(link.failed("list its qdiscs"))? {
        found |= qdisc.header.index == index && qdisc.attributes.iter().any(ours);
    }
    if !found {
        return Ok(());
    }
    let removed = while_busy!({
        let mut request = handle.qdisc().del(index);
        request.message_mut().header.parent = TcHandle::INGRESS;
        request.message_mut().header.handle = TcHandle::from(INGRESS);
        request.execute()
    });
    match removed {
        // It went in between.
        Err(error) if is(&error, libc::ENOENT) || is(&error, libc::ENODEV) => Ok(()),
        result => result.map_err(link.failed("remove its ingress qdisc")),
    }
}

/// Interface numbers are positive ints in the kernel; tc has them signed.
fn signed(link: &Link, index: u32) -> Result<i32, LinkError> {
    i32::try_from(index).map_err(|error| link.io("use its number")(std::io::Error::other(error)))
}
