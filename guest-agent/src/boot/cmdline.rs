//! What the virtual machine monitor says on the kernel's command line.

/// Base of the pair of ports from `husk.port=0x510`: ready is written to it and the exit code to the one above.
#[must_use]
pub fn port(cmdline: &str) -> Option<u16> {
    let value = cmdline.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("husk.port="))?;
    let port = match value.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => value.parse(),
    };
    port.ok().filter(|port| *port != 0 && *port != u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_hexadecimal_or_decimal() {
        assert_eq!(port("console=ttyS0 husk.port=0x510 quiet"), Some(0x510));
        assert_eq!(port("husk.port=1296"), Some(0x510));
    }

    #[test]
    fn a_missing_or_senseless_port_is_none() {
        for cmdline in ["", "quiet", "husk.port=", "husk.port=x", "husk.port=0", "husk.port=0xffff", "husk.port=65536"]
        {
            assert_eq!(port(cmdline), None, "{cmdline}");
        }
    }
}
