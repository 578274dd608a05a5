{{- define "tollgate.listen" -}}
{{- $host := .address -}}
{{- if contains ":" $host }}[{{ $host }}]{{ else }}{{ $host }}{{ end }}:{{ int .port }}
{{- end -}}

{{- define "tollgate.listenCalls" -}}
{{- if .Values.calls.unixSocket -}}
unix:/run/tollgate/{{ .Values.calls.unixSocket }}
{{- else -}}
{{- $address := ternary "127.0.0.1" .Values.listenAddress (eq .Values.shape "sidecar") -}}
{{- include "tollgate.listen" (dict "address" $address "port" .Values.calls.port) -}}
{{- end -}}
{{- end -}}

{{/* The configuration file, TOML: a JSON string is a TOML string, and so are numbers and booleans. */}}
{{- define "tollgate.configuration" -}}
{{- include "tollgate.check" . -}}
# Made by the chart from its values.
{{- if eq .Values.ledger.kind "memory" }}
ledger = "memory"
{{- else if eq .Values.ledger.kind "file" }}
ledger = "file:/var/lib/tollgate/ledger/ledger"
{{- else if and .Values.ledger.redis.url (not .Values.ledger.redis.auth.secret) }}
ledger = {{ .Values.ledger.redis.url | toRawJson }}
{{- end }}
listen = {{ include "tollgate.listenCalls" . | toRawJson }}
{{- $exposed := and .Values.administration.expose (eq .Values.shape "service") }}
{{- $address := ternary .Values.listenAddress "127.0.0.1" $exposed }}
admin_listen = {{ include "tollgate.listen" (dict "address" $address "port" .Values.administration.port) | toRawJson }}
http_listen = {{ include "tollgate.listen" (dict "address" .Values.listenAddress "port" .Values.http.port) | toRawJson }}
journal = {{ ternary "off" "/var/lib/tollgate/journal" (eq .Values.journal.storage "none") | toRawJson }}
{{- with .Values.secrets }}
{{- if .identities.name }}
identities_file = "/etc/tollgate-secrets/identities.toml"
{{- end }}
{{- if .tokenKeys.name }}
token_keys_file = "/etc/tollgate-secrets/token-keys"
{{- end }}
{{- if .tls.name }}
tls_cert = "/etc/tollgate-secrets/tls.crt"
tls_key = "/etc/tollgate-secrets/tls.key"
{{- end }}
{{- if .clientCa.name }}
tls_client_ca = "/etc/tollgate-secrets/client-ca.crt"
{{- end }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- $secret := .Values.secrets.webhookSecrets.name }}
{{- if or .Values.config.notices $secret }}

[notices]
{{- if $secret }}
webhook_secrets_file = "/etc/tollgate-secrets/webhook-secrets"
{{- end }}
{{- range $key, $value := .Values.config.notices }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{ end -}}

{{/* Whole seconds of a length such as 10s, 1500ms or 1m30s, rounded up. */}}
{{- define "tollgate.seconds" -}}
{{- $millis := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $number := int64 (regexFind "^[0-9]+" .) -}}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+$" .) -}}
{{- $millis = add $millis (mul $number (int64 $unit)) -}}
{{- end -}}
{{- div (add $millis 999) 1000 -}}
{{- end -}}

{{/* The drain bound of the program and what surrounds it, in seconds. */}}
{{- define "tollgate.terminationSeconds" -}}
{{- $grace := include "tollgate.seconds" (default "10s" .Values.config.shutdown_grace) | int -}}
{{- add $grace .Values.termination.preStopSeconds .Values.termination.marginSeconds -}}
{{- end -}}
