//! Which addresses may be dialled.
//!
//! The default is the public internet and nothing else. The rules look at the IP address that is about to be dialled,
//! after name resolution, so they hold whatever the URL looked like. Special ranges follow the IANA special-purpose
//! address registries (RFC 6890 and successors).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of address that is not dialled unless it was allowed by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressRule {
    /// This machine: `127.0.0.0/8`, `::1`, and the name `localhost`.
    Loopback,
    /// Private networks of RFC 1918.
    Private,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Carrier-grade NAT, `100.64.0.0/10`.
    SharedAddressSpace,
    /// IPv6 private networks: `fc00::/7`, and the older `fec0::/10`.
    UniqueLocal,
    /// An IPv4 address translated into IPv6: `64:ff9b::/96`, `64:ff9b:1::/48`.
    Nat64,
    /// An IPv4 address tunnelled in IPv6: `2002::/16`, `192.88.99.0/24`.
    SixToFour,
    /// An IPv4 address tunnelled in IPv6: `2001::/32`.
    Teredo,
    /// An IPv4 address written as IPv6: `::ffff:0:0/96`, `::/96`.
    MappedIpv4,
    /// `0.0.0.0/8`, `::`: many systems dial themselves.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`, and broadcast.
    Multicast,
    /// A cloud provider's instance metadata service.
    Metadata,
    /// Documentation, benchmarks, future use: nobody public answers there.
    Reserved,
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::SharedAddressSpace => "a carrier-grade NAT address",
            Self::UniqueLocal => "a unique local address",
            Self::Nat64 => "a NAT64 address",
            Self::SixToFour => "a 6to4 address",
            Self::Teredo => "a Teredo address",
            Self::MappedIpv4 => "an IPv4 address mapped into IPv6",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast or broadcast address",
            Self::Metadata => "an instance metadata address",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Addresses of instance metadata services, named apart from their ranges because they hand out credentials.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

impl AddressRule {
    /// The rule that forbids `ip` by default, or `None` for a public address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Option<Self> {
        if METADATA_V4.contains(&ip) {
            return Some(Self::Metadata);
        }
        let [a, b, c, d] = ip.octets();
        match (a, b, c, d) {
            (0, ..) => Some(Self::Unspecified),
            (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => Some(Self::Private),
            (100, 64..=127, ..) => Some(Self::SharedAddressSpace),
            (127, ..) => Some(Self::Loopback),
            (169, 254, ..) => Some(Self::LinkLocal),
            (192, 88, 99, _) => Some(Self::SixToFour),
            (192, 0, 0 | 2, _) | (198, 18 | 19, ..) | (198, 51, 100, _) | (203, 0, 113, _) => {
                Some(Self::Reserved)
            }
            (224..=239, ..) | (255, 255, 255, 255) => Some(Self::Multicast),
            (240..=255, ..) => Some(Self::Reserved),
            _ => None,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Option<Self> {
        if METADATA_V6.contains(&ip) {
            return Some(Self::Metadata);
        }
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Self::Unspecified),
            [0, 0, 0, 0, 0, 0, 0, 1] => Some(Self::Loopback),
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(Self::MappedIpv4),
            [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Some(Self::Nat64),
            [0xfe80..=0xfebf, ..] => Some(Self::LinkLocal),
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Self::UniqueLocal),
            [0xff00..=0xffff, ..] => Some(Self::Multicast),
            [0x2001, 0, ..] => Some(Self::Teredo),
            [0x2002, ..] => Some(Self::SixToFour),
            // Protocol assignments (ORCHID, benchmarks and others) and documentation.
            [0x2001, 1..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(Self::Reserved),
            // Only 2000::/3 is given out as global unicast.
            [0x2000..=0x3fff, ..] => None,
            _ => Some(Self::Reserved),
        }
    }
}

/// The addresses that a client may dial.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    any: bool,
    hosts: Vec<(String, u16)>,
    cidrs: Vec<Cidr>,
}

/// A network in CIDR notation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a network in CIDR notation; write for example `10.20.0.0/16` or `fd00:1::/64`"
)]
pub struct CidrError(String);

#[derive(Debug, Clone, Copy)]
struct Cidr {
    network: IpAddr,
    prefix: u32,
}

impl AddressRules {
    /// The public internet only. This is the default.
    #[must_use]
    pub fn public_only() -> Self {
        Self::default()
    }

    /// Every address. Only for targets that an operator wrote into the configuration.
    #[must_use]
    pub fn any() -> Self {
        Self {
            any: true,
            ..Self::default()
        }
    }

    /// Allows whatever address `host` has, on `port`. `host` is a name or an IP address, without brackets.
    #[must_use]
    pub fn allow_host_port(mut self, host: &str, port: u16) -> Self {
        self.hosts.push((canonical_host(host), port));
        self
    }

    /// Allows the host and port of a URL that an operator wrote down, such as a provider's `base_url`.
    ///
    /// # Errors
    /// If the URL is not one that this client would send to.
    pub fn allow_url(self, url: &str) -> Result<Self, crate::UrlError> {
        let target = crate::Target::of(&crate::parse_url(url)?)?;
        Ok(self.allow_host_port(target.host(), target.port()))
    }

    /// Allows a network such as `10.20.0.0/16`, on every port.
    ///
    /// # Errors
    /// If `network` is not an address and a prefix length that fits it.
    pub fn allow_cidr(mut self, network: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(network.to_owned());
        let (address, prefix) = network.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        if prefix > bits(address).1 {
            return Err(wrong());
        }
        self.cidrs.push(Cidr {
            network: address,
            prefix,
        });
        Ok(self)
    }

    /// Checks an address that was found for `host` and is about to be dialled on `port`.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn check(&self, host: &str, port: u16, ip: IpAddr) -> Result<(), AddressRule> {
        let Some(rule) = AddressRule::of(ip) else {
            return Ok(());
        };
        if self.allows_host(host, port) || self.cidrs.iter().any(|c| c.contains(ip)) {
            return Ok(());
        }
        Err(rule)
    }

    /// Checks a name before it is looked up. Names that mean this machine by definition (RFC 6761) are refused early,
    /// so that a refusal does not depend on the resolver.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn check_name(&self, host: &str, port: u16) -> Result<(), AddressRule> {
        let name = canonical_host(host);
        let is_local = name == "localhost" || name.ends_with(".localhost");
        if is_local && !self.allows_host(host, port) && self.cidrs.is_empty() {
            return Err(AddressRule::Loopback);
        }
        Ok(())
    }

    fn allows_host(&self, host: &str, port: u16) -> bool {
        if self.any {
            return true;
        }
        !self.hosts.is_empty() && {
            let host = canonical_host(host);
            self.hosts.iter().any(|(h, p)| *p == port && *h == host)
        }
    }
}

impl Cidr {
    fn contains(&self, ip: IpAddr) -> bool {
        let ((a, width), (b, other)) = (bits(self.network), bits(ip));
        if width != other {
            return false;
        }
        let shift = width - self.prefix;
        // A prefix of 0 shifts by the whole width, which the operator does not take for 128.
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    }
}

fn bits(ip: IpAddr) -> (u128, u32) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// One spelling for each host: lower case, no final dot, addresses in their shortest form.
fn canonical_host(host: &str) -> String {
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}
