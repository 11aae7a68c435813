package apnsconn

import (
	"regexp"
	"strconv"
	"strings"
)

// reasonKey is an answer of APNs: its HTTP status and the reason in its body. anyReason stands
// for every reason that has no row of its own.
type reasonKey struct {
	status int
	reason string
}

// anyReason is the reason of a status' fallback row.
const anyReason = "*"

// classification says what an answer means.
type classification struct {
	class     Class
	reconnect bool   // see Outcome.Reconnect
	text      string // for people: see ReasonText
}

// reasons has every answer that Apple documents for pushes and broadcasts, and those seen on the
// wire that differ from the documents. It is never changed. testdata/apns-reasons.json has the
// same facts, with the action that each answer asks for; a test compares the two.
//
// Two rows do not follow their status. 403 Forbidden concerns only the one request, and Apple
// says never to repeat it, so it is Rejected and does not stop the app. 429
// TooManyProviderTokenUpdates concerns the provider token, not a device, so it is Unavailable.
//
// Apple: handling-notification-responses-from-apns (device pushes),
// handling-error-responses-from-apns (broadcasts).
var reasons = map[reasonKey]classification{
	{400, "BadCollapseId"}:              {Rejected, false, "the collapse id is longer than 64 bytes"},
	{400, "BadDeviceToken"}:             {Token, false, "the device token is malformed, or belongs to the other environment (sandbox or production)"},
	{400, "BadExpirationDate"}:          {Rejected, false, "the expiration is not a valid time; for a channel that stores nothing it must be 0"},
	{400, "BadMessageId"}:               {Rejected, false, "the notification id is not a UUID"},
	{400, "BadPriority"}:                {Rejected, false, "the priority is not 1, 5 or 10, or is not allowed for this push type"},
	{400, "BadTopic"}:                   {Rejected, false, "the topic is not valid"},
	{400, "DeviceTokenNotForTopic"}:     {Token, false, "the device token belongs to another app than this topic"},
	{400, "DuplicateHeaders"}:           {Rejected, false, "a header was sent twice"},
	{400, "IdleTimeout"}:                {Unavailable, true, "the connection was idle for too long; a new one is needed"},
	{400, "InvalidPushType"}:            {Rejected, false, "the push type is unknown to APNs, or not allowed here"},
	{400, "MissingDeviceToken"}:         {Rejected, false, "the request names no device token"},
	{400, "MissingTopic"}:               {Rejected, false, "the topic is missing, and the credential serves more than one"},
	{400, "PayloadEmpty"}:               {Rejected, false, "the payload is empty"},
	{400, "TopicDisallowed"}:            {Credential, false, "this certificate or key may not push to this topic; check the topic and the suffix of its push type"},
	{400, "FeatureNotEnabled"}:          {Credential, false, "the broadcast capability is switched off for this app"},
	{400, "BroadcastFeatureNotEnabled"}: {Credential, false, "the broadcast capability is switched off for this app"},
	{400, "MissingChannelId"}:           {Rejected, false, "the channel id is missing"},
	{400, "BadChannelId"}:               {Token, false, "the channel id is badly encoded, or never existed"},
	{400, "ChannelNotRegistered"}:       {Token, false, "the channel does not exist any more"},
	{400, "BadRequestParams"}:           {Rejected, false, "the request body holds an attribute that APNs does not know"},
	{400, "BadRequestPayload"}:          {Rejected, false, "the request body cannot be parsed"},
	{400, "MissingPushType"}:            {Rejected, false, "the push type is missing"},
	{400, "MissingChannelQueueSize"}:    {Rejected, false, "the channel's storage policy is missing or not valid"},
	{400, "CannotCreateChannelConfig"}:  {Rejected, false, "the app has reached its limit of channels"},

	{403, "BadCertificate"}:             {Credential, false, "the client certificate is not valid; renew it"},
	{403, "BadCertificateEnvironment"}:  {Credential, false, "the client certificate is for the other environment (sandbox or production)"},
	{403, "ExpiredProviderToken"}:       {Unavailable, true, "the provider token is older than one hour; a new one is needed, or this machine's clock is wrong"},
	{403, "Forbidden"}:                  {Rejected, false, "APNs does not allow this action"},
	{403, "InvalidProviderToken"}:       {Credential, false, "the provider token is not valid: wrong key, key id or team id, or this machine's clock is wrong"},
	{403, "MissingProviderToken"}:       {Credential, false, "the request came with neither a client certificate nor a provider token"},
	{403, "UnrelatedKeyIdInToken"}:      {Unavailable, true, "the provider token's key is not related to the first one used on this connection; a new connection is needed"},
	{403, "BadEnvironmentKeyIdInToken"}: {Credential, false, "the signing key is limited to the other environment (sandbox or production)"},
	{403, "BadEnvironmentKeyInToken"}:   {Credential, false, "the signing key is limited to the other environment (sandbox or production)"},
	{403, "TopicMismatch"}:              {Credential, false, "the certificate or key does not cover the bundle id of the request"},

	{404, "BadPath"}:          {Rejected, false, "the request's path is not valid"},
	{405, "MethodNotAllowed"}: {Rejected, false, "the request's method is not allowed"},

	{410, "ExpiredToken"}: {Token, false, "the device token has expired"},
	{410, "Unregistered"}: {Token, false, "the device token is not active for this topic any more"},

	{413, "PayloadTooLarge"}: {Rejected, false, "the payload is over 4096 bytes (5120 for voip and broadcasts)"},

	{429, "TooManyProviderTokenUpdates"}: {Unavailable, false, "the provider token was renewed more than once in 20 minutes"},
	{429, "TooManyRequests"}:             {Throttled, false, "too many pushes to this one device token"},

	{500, "InternalServerError"}: {Unavailable, false, "APNs had an internal error"},

	{503, "ServiceUnavailable"}:  {Unavailable, false, "APNs is not available"},
	{503, "Service Unavailable"}: {Unavailable, false, "APNs is not available"}, // so printed on the broadcast page
	{503, "Shutdown"}:            {Unavailable, true, "this APNs server is shutting down; a new connection is needed"},

	{400, anyReason}: {Rejected, false, "APNs calls the request bad"},
	{403, anyReason}: {Credential, false, "APNs does not accept this certificate or key"},
	{404, anyReason}: {Rejected, false, "APNs does not know the request's path"},
	{405, anyReason}: {Rejected, false, "APNs does not allow the request's method"},
	{410, anyReason}: {Token, false, "the device token is not in use any more"},
	{413, anyReason}: {Rejected, false, "the payload is too large"},
	{429, anyReason}: {Throttled, false, "too many pushes"},
	{500, anyReason}: {Unavailable, false, "APNs had an internal error"},
	{502, anyReason}: {Unavailable, false, "a proxy or an edge in front of APNs could not reach it"},
	{503, anyReason}: {Unavailable, false, "APNs is not available"},
	{504, anyReason}: {Unavailable, false, "a proxy or an edge in front of APNs got no answer from it"},
}

// classify looks an answer up: its own row, else the row of its status, else what HTTP says
// about its status. It is not for 200.
//
// Statuses that APNs does not document, apart from 4xx and 5xx:
//   - 3xx: a proxy answered, not APNs. Nothing was pushed, and the fault may pass, so it is
//     Unavailable.
//   - 2xx other than 200, and anything but a final HTTP status: it is not known whether APNs
//     took the push, so it is Unknown.
func classify(status int, reason string) classification {
	if v, ok := reasons[reasonKey{status, reason}]; ok {
		return v
	}
	if v, ok := reasons[reasonKey{status, anyReason}]; ok {
		return v
	}
	switch {
	case status >= 300 && status < 400:
		return classification{Unavailable, false, "a proxy between this machine and APNs answered with a redirect"}
	case status >= 400 && status < 500:
		return classification{Rejected, false, "the request was refused with a status that APNs does not document"}
	case status >= 500 && status < 600:
		return classification{Unavailable, false, "the request failed with a status that APNs does not document"}
	}
	return classification{Unknown, false, "APNs never gives this status"}
}

// credentialReason reports whether a reason without a status, as in a GOAWAY frame, refuses the
// certificate or key.
func credentialReason(reason string) bool {
	return reasons[reasonKey{403, reason}].class == Credential ||
		reasons[reasonKey{400, reason}].class == Credential
}

// ReasonStatus is the HTTP status with which APNs gives a reason; 0 for a reason that
// is not in the table.
func ReasonStatus(reason string) int {
	if reason == anyReason {
		return 0
	}
	for key := range reasons {
		if key.reason == reason {
			return key.status
		}
	}
	return 0
}

// ReasonText says in a few words for people what an answer means, for example
// "the device token has expired". It has a text for every status and reason,
// documented or not; the text holds nothing of the reason itself. Status 0
// stands for a push that got no answer.
func ReasonText(status int, reason string) string {
	switch status {
	case 200:
		return "APNs accepted the push"
	case 0:
		return "APNs gave no answer"
	}
	return classify(status, reason).text
}

// apnsAnswer is how the reason of an outcome begins if it is an answer of APNs': with
// its status and APNs' reason.
var apnsAnswer = regexp.MustCompile(`^([45]\d\d) (\w+)`)

// Explain says in words what the answer of APNs that a reason begins with means, and what
// to do, for example "The device token has expired". It returns "" for any other reason.
func Explain(reason string) string {
	answer := apnsAnswer.FindStringSubmatch(reason)
	if answer == nil {
		return ""
	}
	status, err := strconv.Atoi(answer[1])
	if err != nil {
		return ""
	}
	text := ReasonText(status, answer[2])
	return strings.ToUpper(text[:1]) + text[1:]
}
