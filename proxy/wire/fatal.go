package wire

// Fatal says that the backend has ended the session with an ErrorResponse of severity FATAL or PANIC, which has
// been forwarded: the client knows why, and nothing of the proxy's own need follow.
func (c *Conversation) Fatal() bool { return c.state == stEnded }
