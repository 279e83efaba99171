//! The default sandbox.

/// All that systemd 252 offers and that does not break ordinary programs.
///
/// Deliberately absent: `MemoryDenyWriteExecute` (Node, Java and .NET write code while they run), `ProcSubset=pid` (Go reads
/// `net.core.somaxconn`, Java and Node `/proc/meminfo`), `PrivateNetwork` and `IPAddressDeny` (it is a server), `RootDirectory`.
pub(super) const STRICT: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
SecureBits=
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
RemoveIPC=yes
KeyringMode=private
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
";
