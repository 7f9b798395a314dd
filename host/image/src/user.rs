//! The user a container runs as: an image's `USER` or a pod's, looked up in the image's own passwd
//! and group files as Docker does (`GetExecUser` of moby/sys/user is the behaviour to match).

use thiserror::Error;

/// Largest user or group id accepted; -1 has a meaning of its own in `setresuid`.
const ID_MAX: u32 = u32::MAX - 1;

/// Supplementary groups a process may have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids: the primary one, for `setgid` by the process must not rid it of that group
    /// (CVE-2022-36109), then those of the group file unless a group was given explicitly.
    pub additional_gids: Vec<u32>,
    /// Home directory: of the passwd entry, else `/`.
    pub home: String,
}

/// Why a user cannot be resolved.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UserError {
    /// A name that is not in the image's passwd file.
    #[error("user \"{0}\" is not in the image's /etc/passwd: name one that is, or give a numeric id")]
    UnknownUser(String),
    /// A name that is not in the image's group file.
    #[error("group \"{0}\" is not in the image's /etc/group: name one that is, or give a numeric id")]
    UnknownGroup(String),
    /// A number beyond the range of ids.
    #[error("id \"{0}\" is not between 0 and {ID_MAX}")]
    Range(String),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that are not entries are passed over, as every reader of these files does.
fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_entries(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// A number if it is one; an error if it is one out of range.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(UserError::Range(text.to_owned())),
    }
}

/// What the image calls a user id, when that is fit to be shown.
pub(crate) fn user_name(uid: u32, passwd: &str) -> Option<String> {
    passwd_entries(passwd).find(|entry| entry.uid == uid).and_then(|entry| shown(entry.name))
}

/// The same for a group id.
pub(crate) fn group_name(gid: u32, group: &str) -> Option<String> {
    group_entries(group).find(|entry| entry.gid == gid).and_then(|entry| shown(entry.name))
}

/// The image may hold anything, also what would move a terminal's cursor.
fn shown(name: &str) -> Option<String> {
    let fit = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
    fit.then(|| name.to_owned())
}

/// Resolves `USER[:GROUP]`, names or numbers; empty means uid 0.
///
/// # Errors
/// [`UserError`].
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<ResolvedUser, UserError> {
    let (user_spec, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let wanted = if user_spec.is_empty() { Some(0) } else { number(user_spec)? };
    let entry = passwd_entries(passwd).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == user_spec,
    });
    let mut user = ResolvedUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/".to_owned() };
    match (&entry, wanted) {
        (Some(entry), _) => {
            (user.uid, user.gid) = (entry.uid, entry.gid);
            if !entry.home.is_empty() {
                entry.home.clone_into(&mut user.home);
            }
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) => return Err(UserError::UnknownUser(user_spec.to_owned())),
    }
    if !group_spec.is_empty() {
        let wanted = number(group_spec)?;
        let entry = group_entries(group).find(|entry| match wanted {
            Some(gid) => entry.gid == gid,
            None => entry.name == group_spec,
        });
        user.gid = match (entry, wanted) {
            (Some(entry), _) => entry.gid,
            (None, Some(gid)) => gid,
            (None, None) => return Err(UserError::UnknownGroup(group_spec.to_owned())),
        };
    } else if let Some(entry) = entry {
        let member = |group: &GroupEntry<'_>| group.members.split(',').any(|member| member == entry.name);
        user.additional_gids = group_entries(group).filter(member).map(|group| group.gid).collect();
    }
    user.additional_gids.retain(|gid| *gid != user.gid);
    user.additional_gids.insert(0, user.gid);
    user.additional_gids.truncate(GROUPS_MAX);
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken\nnginx:x:101:102:nginx:/var/cache/nginx:/bin/false\nbare:x:7:8::\n";
    const GROUP: &str = "root:x:0:root\nwww-data:x:33:nginx,other\nnginx:x:102:\nextra:x:500:other,nginx\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let user = resolve(spec, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.additional_gids, user.home)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let home = "/var/cache/nginx".to_owned();
        assert_eq!(ids(""), (0, 0, vec![0], "/root".to_owned()));
        assert_eq!(ids("nginx"), (101, 102, vec![102, 33, 500], home.clone()));
        assert_eq!(ids("101"), (101, 102, vec![102, 33, 500], home.clone()));
        assert_eq!(ids("nginx:www-data"), (101, 33, vec![33], home.clone()));
        assert_eq!(ids("nginx:1004"), (101, 1004, vec![1004], home));
        assert_eq!(ids("1000"), (1000, 0, vec![0], "/".to_owned()));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![1000], "/".to_owned()));
        assert_eq!(ids(":33"), (0, 33, vec![33], "/root".to_owned()));
        assert_eq!(ids("bare"), (7, 8, vec![8], "/".to_owned()));
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        assert_eq!(resolve("5:6", "", "").unwrap().uid, 5);
        assert_eq!(resolve("nginx", "", ""), Err(UserError::UnknownUser("nginx".to_owned())));
        assert_eq!(resolve("0:staff", "", ""), Err(UserError::UnknownGroup("staff".to_owned())));
    }

    #[test]
    fn ids_out_of_range_are_refused() {
        for spec in ["4294967295", "99999999999", "0:4294967295"] {
            assert!(matches!(resolve(spec, PASSWD, GROUP), Err(UserError::Range(_))));
        }
    }
}
