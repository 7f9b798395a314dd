//! Checks of a file system that can be written, by subject.

mod access;
mod create;
mod data;
mod links;
mod listing;
mod locks;
mod map;
mod names;
mod ownership;
mod paths;
mod program;
mod remove;
mod rename;
mod space;
mod special;
mod times;
mod xattr;

use crate::kit::Check;

pub(crate) fn all() -> Vec<Check> {
    [
        access::CHECKS,
        ownership::CHECKS,
        create::CHECKS,
        names::CHECKS,
        rename::CHECKS,
        remove::CHECKS,
        links::CHECKS,
        data::CHECKS,
        map::CHECKS,
        locks::CHECKS,
        xattr::CHECKS,
        times::CHECKS,
        listing::CHECKS,
        special::CHECKS,
        program::CHECKS,
        paths::CHECKS,
        space::CHECKS,
    ]
    .concat()
}
