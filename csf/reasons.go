package csf

// Reasons is the one table of refusals, failures and ends. SQLSTATE, event kind, metric label (the reason
// itself), the client's text and the documentation all come from it. What the register refuses looks to the
// client like a wrong password, so that nobody can ask the ingress who is registered.
var reasons = []ReasonInfo{
	{ReasonSourceNotAllowed, ConnRejected, "", "", "the address is outside the listener's allow list"},
	{ReasonContained, AuthzDenied, "28000", "access is suspended", "a containment is in force: csfproxy contain list"},
	{ReasonTooMany, LimitExceeded, "53300", "sorry, too many clients already", "the listener's limits.connections is reached"},
	{ReasonTooManySource, LimitExceeded, "53300", "too many connections from this address", "the listener's limits.per_source is reached"},
	{ReasonAuditUnavailable, ConnRejected, "57P03", "the service cannot take new sessions now", "the spool cannot take records: free its disk, see readyz"},
	{ReasonShuttingDown, ConnRejected, "57P03", "the service is shutting down", "the node drains"},
	{ReasonStartupTimeout, StartupRefused, "", "", "no complete login within limits.startup_timeout"},
	{ReasonStartupRate, LimitExceeded, "53300", "too many unfinished logins from this address", "too many connections of one source are before authentication"},
	{ReasonClientGone, StartupRefused, "", "", "the client closed before it was bound to an identity"},

	{ReasonProxyUnregistered, ProxyRefused, "", "", "a PROXY header came from an address that is no registered source"},
	{ReasonProxyMissing, ProxyRefused, "", "", "a registered source sent no PROXY header"},
	{ReasonProxyDuplicate, ProxyRefused, "", "", "a second PROXY header followed the first"},
	{ReasonProxyExpired, ProxyRefused, "", "", "the source's registration has expired: renew it with a new approval"},
	{ReasonProxyClient, ProxyRefused, "", "", "the asserted client address is outside what the source may claim"},
	{ReasonProxyMalformed, ProxyRefused, "", "", "the PROXY header is malformed"},
	{ReasonProxyOversized, ProxyRefused, "", "", "the PROXY header is larger than 4096 bytes (version 1: 107)"},
	{ReasonProxyTimeout, ProxyRefused, "", "", "no complete PROXY header in time"},
	{ReasonProxySignature, ProxyRefused, "", "", "the header's signature TLV is missing or wrong"},
	{ReasonProxyUnexpected, ProxyRefused, "", "", "a PROXY header on a listener whose proxy_protocol.mode is off"},

	{ReasonPlaintext, TLSPlaintextRefused, "28000", "connection requires TLS", "the client must use sslmode=require or stronger"},
	{ReasonTLSHandshake, TLSRefused, "", "", "the TLS handshake failed"},
	{ReasonTLSStuffed, ProtocolViolation, "", "", "bytes were pipelined before the TLS handshake"},
	{ReasonTLSALPN, TLSRefused, "", "", "direct TLS needs the ALPN protocol postgresql"},
	{ReasonTLSDisabled, TLSRefused, "", "", "direct TLS on a listener without TLS"},
	{ReasonTLSCertificate, TLSRefused, "28000", "a valid client certificate is required", "the client certificate is missing, expired or not from client_ca"},
	{ReasonRequestRepeated, ProtocolViolation, "0A000", "unsupported frontend protocol", "an encryption request was repeated"},

	{ReasonStartupMalformed, StartupRefused, "08P01", "invalid startup packet layout", "the StartupMessage is malformed"},
	{ReasonStartupTooLarge, StartupRefused, "", "", "the startup packet's length is outside its limits"},
	{ReasonStartupDuplicate, StartupRefused, "08P01", "invalid startup packet: duplicate parameter", "a startup parameter came twice"},
	{ReasonStartupUser, StartupRefused, "28000", "no PostgreSQL user name specified in startup packet", ""},
	{ReasonStartupName, StartupRefused, "28000", "user or database name is too long", "names over 63 bytes would be truncated to another name by PostgreSQL"},
	{ReasonStartupParameter, StartupRefused, "42501", "startup parameter not permitted", "the parameter is not on the allow list"},
	{ReasonStartupVersion, StartupRefused, "0A000", "unsupported frontend protocol", "protocol 3.0 to 3.2 are supported"},
	{ReasonForeignProtocol, ProtocolViolation, "", "", "the first bytes belong to another protocol"},
	{ReasonReplication, AuthzDenied, "28000", "replication is not permitted for this identity", "the identity's registration does not permit replication"},

	{ReasonCancelUnknown, CancelRefused, "", "", "no session of this node has that cancel key"},
	{ReasonCancelEnded, CancelRefused, "", "", "the cancel key's session has ended; drivers send such requests when they lose a connection"},
	{ReasonCancelMalformed, CancelRefused, "", "", "the CancelRequest's length is wrong"},
	{ReasonCancelPlaintext, CancelRefused, "", "", "a CancelRequest in plaintext on a listener that requires TLS"},
	{ReasonCancelRate, CancelRefused, "", "", "too many CancelRequests at once"},
	{ReasonCancelUpstream, CancelRefused, "", "", "the upstream did not take the CancelRequest in time"},

	{ReasonIdentityUnknown, AuthzDenied, "28P01", "password authentication failed", "no registered identity matches: register it or leave it refused"},
	{ReasonIdentityExpired, AuthzDenied, "28P01", "password authentication failed", "the identity's registration has expired: renew it with a new approval"},
	{ReasonIdentityNetwork, AuthzDenied, "28P01", "password authentication failed", "the identity is registered, not from this network"},
	{ReasonIdentityDatabase, AuthzDenied, "28P01", "password authentication failed", "the identity is registered, not for this database"},
	{ReasonIdentityCert, AuthzDenied, "28P01", "password authentication failed", "the identity needs another client certificate"},
	{ReasonIdentityLimit, AuthzDenied, "53300", "too many connections for this identity", "the identity's limits.connections is reached"},

	{ReasonPassword, AuthFailed, "28P01", "password authentication failed", ""},
	{ReasonUserUnknown, AuthFailed, "28P01", "password authentication failed", "the user has no verifier; a mock exchange was run"},
	{ReasonAuthMessage, AuthFailed, "08P01", "invalid authentication message", "the client broke the authentication exchange"},
	{ReasonAuthFloor, AuthDowngrade, "28000", "authentication method below the required floor", "the upstream asked for less than the identity's methods: set scram-sha-256 in its pg_hba.conf"},
	{ReasonAuthUpstream, AuthFailed, "28P01", "password authentication failed", "the upstream refused the login"},
	{ReasonAuthServer, AuthDowngrade, "28000", "upstream could not be authenticated", "the upstream did not prove that it knows the verifier"},

	{ReasonUpstreamDown, UpstreamFailed, "08001", "the database cannot be reached", "see csfproxy runbook list and /v1/upstreams"},
	{ReasonUpstreamTLS, TLSUpstreamVerifyFailed, "08001", "the database cannot be reached securely", "the upstream offered no TLS or failed the handshake"},
	{ReasonUpstreamCert, TLSUpstreamVerifyFailed, "08001", "the database cannot be reached securely", "the upstream's certificate does not verify: check clusters.tls.ca and the member's name"},
	{ReasonUpstreamNoPrimary, UpstreamFailed, "57P03", "the database is not accepting connections now", "no member of the cluster is a confirmed primary"},
	{ReasonUpstreamLost, UpstreamFailed, "08006", "the connection to the database was lost", ""},
	{ReasonCommitUnknown, UpstreamFailed, "08007", "the connection was lost after COMMIT was sent; its outcome is unknown", "check before a retry"},

	{ReasonFrameLength, ProtocolViolation, "", "", "a message length below 4 or over PostgreSQL's limit"},
	{ReasonFrameTooLarge, ProtocolViolation, "08P01", "message too large", "limits.message_bytes"},
	{ReasonFrameType, ProtocolViolation, "08P01", "invalid message type", ""},
	{ReasonFrameState, ProtocolViolation, "08P01", "message not allowed in this state", ""},
	{ReasonFrameBody, ProtocolViolation, "08P01", "invalid message format", ""},
	{ReasonFrameTruncated, ProtocolViolation, "", "", "the stream ended inside a message"},

	{ReasonRule, QueryBlocked, "42501", "statement refused by policy", "a rule's response is refuse"},
	{ReasonStatementClass, QueryBlocked, "42501", "statement refused by policy", "the identity's statements.deny names the class"},
	{ReasonStatementTooLarge, QueryBlocked, "54000", "statement too large to be inspected", "limits.statement_bytes"},

	{ReasonClientTerminate, SessionClosed, "", "", "Terminate"},
	{ReasonClientClosed, SessionClosed, "", "", "the client closed without Terminate"},
	{ReasonClientError, SessionClosed, "", "", "the client's connection broke"},
	{ReasonUpstreamClosed, SessionClosed, "", "", "the upstream ended the session"},
	{ReasonIdleTimeout, SessionTerminated, "57P05", "terminating connection due to idle timeout", "limits.idle_timeout"},
	{ReasonWriteTimeout, SessionTerminated, "", "", "the client did not read for limits.write_timeout"},
	{ReasonKilled, SessionTerminated, "57P01", "terminating connection due to administrator command", "csfproxy sessions kill or DELETE /v1/sessions"},
	{ReasonRevoked, SessionTerminated, "57P01", "terminating connection due to administrator command", "the identity expired or left the register"},
	{ReasonFailover, SessionTerminated, "57P01", "terminating connection: the database moved to another server", "the old primary was fenced"},
	{ReasonNodeLost, SessionTerminated, "", "", "the node died with the session; its end was recorded at the next start"},
	{ReasonPanic, SessionTerminated, "XX000", "internal error", "a defect: the session ended, others go on; see the log"},
}

var reasonIndex = func() map[Reason]ReasonInfo {
	m := make(map[Reason]ReasonInfo, len(reasons))
	for _, r := range reasons {
		m[r.Reason] = r
	}
	return m
}()

// Reasons gives the table in the order in which a connection can meet its entries.
func Reasons() []ReasonInfo { return append([]ReasonInfo(nil), reasons...) }

// Info gives the table's entry, or one with SQLSTATE XX000 for a reason that is not in it.
func (r Reason) Info() ReasonInfo {
	if i, ok := reasonIndex[r]; ok {
		return i
	}
	return ReasonInfo{Reason: r, Kind: SessionTerminated, SQLSTATE: "XX000", Message: "internal error"}
}
