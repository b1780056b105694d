-- Prosody for the agents of @{domain}, written by `agency server init`. Holds a secret: for its owner's eyes only.
pidfile = "@{directory}/run/prosody.pid"
data_path = "@{directory}/data"
log = { { levels = { min = "info" }, to = "file", filename = "@{directory}/data/prosody.log" } }

interfaces = { @{addresses} }
c2s_ports = { @{c2s_port} }
s2s_ports = { @{s2s_port} }
-- the agency's own connection (XEP-0114) is not encrypted: it never leaves this machine
component_interfaces = { "127.0.0.1" }
component_ports = { @{component_port} }
http_ports = {}
https_ports = {}
network_backend = "epoll"
network_settings = { tcp_backlog = 1024, nagle = false }  -- with nagle every hop waits 40 ms

modules_enabled = {
	"disco"; "iq"; "limits"; "message"; "ping"; "presence"; "roster"; "s2s"; "s2s_auth_certs"; "saslauth"; "smacks"; "tls";
}
-- no dialback: another server has only its certificate to prove who it is; nothing is kept for who is away: it bounces
modules_disabled = { "http"; "offline"; "register"; "s2s_bidi" }

-- TLS: whoever connects must use it, and we believe only those whom ca.pem vouches for
c2s_require_encryption = true
s2s_require_encryption = true
s2s_secure_auth = true
certificates = "@{directory}/tls"
ssl = {
	certificate = "@{directory}/tls/certificate.pem";
	key = "@{directory}/tls/key.pem";
	cafile = "@{directory}/tls/ca.pem";
	capath = "/nonexistent";
	protocol = "tlsv1_2+";
	ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20";
}

-- SCRAM only: no password is sent, or kept, as it is; accounts are made by the owner of this machine alone
authentication = "internal_hashed"
password_hash = "SHA-256"
disable_sasl_mechanisms = { "PLAIN"; "LOGIN"; "DIGEST-MD5"; "OAUTHBEARER"; "ANONYMOUS" }
allow_registration = false

c2s_stanza_size_limit = 262144
s2s_stanza_size_limit = 524288
component_stanza_size_limit = 16777216
limits = {
	c2s = { rate = "10mb/s"; burst = "4s" };
	s2sin = { rate = "10mb/s"; burst = "4s" };
}
smacks_hibernation_time = 15
smacks_max_queue_size = 5000

VirtualHost "@{domain}"

Component "@{agents}"
	component_secret = "@{secret}"
	component_conflict_resolve = "kick_old"

Component "pubsub.@{domain}" "pubsub"
	-- who may create nodes; whoever makes one owns it
	admins = { "@{agents}"; "mediator@@@{agents}"; "mediator@@@{domain}" }
	pubsub_max_items = 1000
