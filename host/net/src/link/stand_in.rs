//! An interface in the place of one that is gone.

use rtnetlink::LinkVeth;

use super::LinkError;
use super::netlink::{Link, inside};
use crate::ip::IpNet;
use crate::netns::NetNs;

/// The other end of the pair; it goes with the interface.
const PEER: &str = "husk-stand-in";

/// Makes interface `name`, down, with these addresses, unless there is one. It carries no frame: it is there for CNI
/// plugins which learn from an interface's addresses what they have to remove elsewhere.
pub(crate) async fn stand_in(netns: &NetNs, name: &str, addresses: Vec<IpNet>) -> Result<(), LinkError> {
    let link = Link::new(netns, name)?;
    let missing = link.clone();
    inside(netns, &link, move |handle| {
        Box::pin(async move {
            match missing.get(handle).await {
                Err(LinkError::Missing { .. }) => {}
                found => return found.map(drop),
            }
            let pair = LinkVeth::new(&missing.name, PEER).build();
            handle.link().add(pair).execute().await.map_err(missing.failed("make it again"))?;
            let index = missing.get(handle).await?.header.index;
            for net in addresses {
                let added = handle.address().add(index, net.address(), net.prefix()).execute().await;
                added.map_err(missing.failed("give it its address again"))?;
            }
            Ok(())
        })
    })
    .await
}
