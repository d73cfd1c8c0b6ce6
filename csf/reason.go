package csf

// Reason says why something was refused, ended or failed. Each reason belongs to one kind.
type Reason string

// The reasons, in the order in which a connection can meet them. The table Reasons declares each one's
// kind, SQLSTATE and text.
const (
	// Accept.
	ReasonSourceNotAllowed Reason = "source_not_allowed"
	ReasonContained        Reason = "contained"
	ReasonTooMany          Reason = "too_many_connections"
	ReasonTooManySource    Reason = "too_many_from_source"
	ReasonAuditUnavailable Reason = "audit_unavailable"
	ReasonShuttingDown     Reason = "shutting_down"
	ReasonStartupTimeout   Reason = "startup_timeout"
	ReasonStartupRate      Reason = "startup_rate"
	ReasonClientGone       Reason = "client_gone"

	// PROXY header.
	ReasonProxyUnregistered Reason = "proxy_source_unregistered"
	ReasonProxyMissing      Reason = "proxy_header_missing"
	ReasonProxyDuplicate    Reason = "proxy_header_duplicate"
	ReasonProxyExpired      Reason = "proxy_source_expired"
	ReasonProxyClient       Reason = "proxy_client_not_permitted"
	ReasonProxyMalformed    Reason = "proxy_header_malformed"
	ReasonProxyOversized    Reason = "proxy_header_oversized"
	ReasonProxyTimeout      Reason = "proxy_header_timeout"
	ReasonProxySignature    Reason = "proxy_signature_invalid"
	ReasonProxyUnexpected   Reason = "proxy_header_unexpected" // a header on a listener without PROXY protocol

	// Negotiation and TLS.
	ReasonPlaintext       Reason = "plaintext_refused"
	ReasonTLSHandshake    Reason = "tls_handshake_failed"
	ReasonTLSStuffed      Reason = "bytes_before_tls"
	ReasonTLSALPN         Reason = "alpn_missing"
	ReasonTLSDisabled     Reason = "tls_not_offered"
	ReasonTLSCertificate  Reason = "client_certificate_refused"
	ReasonRequestRepeated Reason = "encryption_request_repeated"

	// StartupMessage.
	ReasonStartupMalformed Reason = "startup_malformed"
	ReasonStartupTooLarge  Reason = "startup_too_large"
	ReasonStartupDuplicate Reason = "startup_duplicate_key"
	ReasonStartupUser      Reason = "startup_user_missing"
	ReasonStartupName      Reason = "startup_name_too_long"
	ReasonStartupParameter Reason = "startup_parameter_refused"
	ReasonStartupVersion   Reason = "protocol_version_unsupported"
	ReasonForeignProtocol  Reason = "foreign_protocol"
	ReasonReplication      Reason = "replication_not_permitted"

	// CancelRequest.
	ReasonCancelUnknown   Reason = "cancel_key_unknown"
	ReasonCancelEnded     Reason = "cancel_session_ended"
	ReasonCancelMalformed Reason = "cancel_malformed"
	ReasonCancelPlaintext Reason = "cancel_plaintext"
	ReasonCancelRate      Reason = "cancel_rate"
	ReasonCancelUpstream  Reason = "cancel_upstream_failed"

	// Identity and access.
	ReasonIdentityUnknown  Reason = "identity_unknown"
	ReasonIdentityExpired  Reason = "identity_expired"
	ReasonIdentityNetwork  Reason = "identity_network"
	ReasonIdentityDatabase Reason = "identity_database"
	ReasonIdentityCert     Reason = "identity_certificate"
	ReasonIdentityLimit    Reason = "identity_limit"

	// Authentication.
	ReasonPassword     Reason = "password_wrong"
	ReasonUserUnknown  Reason = "user_unknown"
	ReasonAuthMessage  Reason = "auth_message_invalid"
	ReasonAuthFloor    Reason = "auth_below_floor"
	ReasonAuthUpstream Reason = "upstream_auth_refused"
	ReasonAuthServer   Reason = "upstream_not_authenticated"

	// Upstream.
	ReasonUpstreamDown      Reason = "upstream_unreachable"
	ReasonUpstreamTLS       Reason = "upstream_tls_failed"
	ReasonUpstreamCert      Reason = "upstream_certificate_refused"
	ReasonUpstreamNoPrimary Reason = "no_primary"
	ReasonUpstreamLost      Reason = "upstream_lost"
	ReasonCommitUnknown     Reason = "commit_outcome_unknown"

	// Protocol, by what was wrong; the side is a fact.
	ReasonFrameLength    Reason = "frame_length_invalid"
	ReasonFrameTooLarge  Reason = "frame_too_large"
	ReasonFrameType      Reason = "frame_type_unknown"
	ReasonFrameState     Reason = "frame_not_allowed_in_state"
	ReasonFrameBody      Reason = "frame_body_malformed"
	ReasonFrameTruncated Reason = "frame_truncated"

	// Statements.
	ReasonRule              Reason = "rule"
	ReasonStatementClass    Reason = "statement_class_denied"
	ReasonStatementTooLarge Reason = "statement_too_large"

	// Ends of a session.
	ReasonClientTerminate Reason = "client_terminated"
	ReasonClientClosed    Reason = "client_closed"
	ReasonClientError     Reason = "client_connection_lost"
	ReasonUpstreamClosed  Reason = "upstream_closed"
	ReasonIdleTimeout     Reason = "idle_timeout"
	ReasonWriteTimeout    Reason = "write_timeout"
	ReasonKilled          Reason = "killed"
	ReasonRevoked         Reason = "revoked"
	ReasonFailover        Reason = "failover"
	ReasonPanic           Reason = "internal_error"
	ReasonNodeLost        Reason = "node_lost"
)

// ReasonInfo declares one reason.
type ReasonInfo struct {
	Reason Reason
	// Kind is the kind of the event that carries the reason.
	Kind Kind
	// SQLSTATE is what the client is told; "" means that the connection closes without a word.
	SQLSTATE string
	// Message is the client's text: no host name, version or state of anything behind the proxy.
	Message string
	// Hint tells the operator, in events and documents, what to do.
	Hint string
}
