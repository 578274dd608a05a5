{{- define "tollgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 56 characters: a suffix such as -admin must fit into the 63 of a label. */}}
{{- define "tollgate.fullname" -}}
{{- $name := include "tollgate.name" . -}}
{{- $default := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $default .Values.fullnameOverride | trunc 56 | trimSuffix "-" -}}
{{- end -}}

{{- define "tollgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tollgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tollgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tollgate.serviceAccountName" -}}
{{- default (ternary (include "tollgate.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "tollgate.image" -}}
{{- $repository := required "image.repository: name the image that you built from the Dockerfile; none is published" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" $repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end -}}
{{- end -}}

{{/* Where Redis is: the ports in its URL; behind sentinels that of the master too, which they name. */}}
{{- define "tollgate.redisPorts" -}}
{{- $url := .Values.ledger.redis.url -}}
{{- $port := int .Values.networkPolicy.redis.port -}}
{{- $sentinels := hasPrefix "redis+sentinel:" $url -}}
{{- $ports := ternary (list $port) list $sentinels -}}
{{- range splitList "," (regexFind "://[^/?]*" $url | trimPrefix "://") -}}
{{- $named := regexFind ":[0-9]+$" . | trimPrefix ":" -}}
{{- $ports = append $ports (default (ternary 26379 $port $sentinels) $named | int) -}}
{{- end -}}
{{- join "," (uniq $ports) -}}
{{- end -}}

{{/* Of the listeners for calls and administration. */}}
{{- define "tollgate.appProtocol" -}}
{{- ternary "https" "kubernetes.io/h2c" (or (ne .Values.secrets.tls.name "") (hasKey .Values.config "tls_cert")) -}}
{{- end -}}

{{/* A workload with volumes of its own is a StatefulSet. */}}
{{- define "tollgate.workload" -}}
{{- ternary "StatefulSet" "Deployment" (or (eq .Values.journal.storage "persistentVolume") (eq .Values.ledger.kind "file")) -}}
{{- end -}}

{{/* What values.schema.json cannot say: values that are right alone but not together. */}}
{{- define "tollgate.check" -}}
{{- $redis := .Values.ledger.redis -}}
{{- if eq .Values.ledger.kind "redis" -}}
{{- if and (not $redis.url) (not $redis.urlFromSecret.name) -}}
{{- fail "ledger.redis.url or ledger.redis.urlFromSecret.name: name the Redis, or set ledger.kind to file (one pod) or memory (a trial)" -}}
{{- end -}}
{{- if and $redis.url $redis.urlFromSecret.name -}}
{{- fail "ledger.redis.url and ledger.redis.urlFromSecret.name: set one of them" -}}
{{- end -}}
{{- if and $redis.auth.secret (not $redis.url) -}}
{{- fail "ledger.redis.auth.secret: needs ledger.redis.url; a URL from a Secret has its own user and password" -}}
{{- end -}}
{{- else -}}
{{- if or $redis.url $redis.urlFromSecret.name $redis.auth.secret -}}
{{- fail "ledger.redis: needs ledger.kind redis" -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.shape "sidecar" -}}
{{- if eq .Values.journal.storage "persistentVolume" -}}
{{- fail "journal.storage: in the sidecar shape none, emptyDir or podVolume: the volume belongs to the pod of the SBC" -}}
{{- end -}}
{{- range $name := list "autoscaling" "serviceMonitor" -}}
{{- if (index $.Values $name).enabled -}}
{{- fail (printf "%s.enabled: in the sidecar shape this belongs to the chart of the SBC" $name) -}}
{{- end -}}
{{- end -}}
{{- else if eq .Values.journal.storage "podVolume" -}}
{{- fail "journal.storage: podVolume needs shape sidecar" -}}
{{- else if .Values.calls.unixSocket -}}
{{- fail "calls.unixSocket: needs shape sidecar; other pods cannot reach a socket" -}}
{{- end -}}
{{- range $secret, $keys := dict "identities" (list "identities_file") "tokenKeys" (list "token_keys_file") "tls" (list "tls_cert" "tls_key") "clientCa" (list "tls_client_ca") -}}
{{- range $key := $keys -}}
{{- if and (index $.Values.secrets $secret).name (hasKey $.Values.config $key) -}}
{{- fail (printf "secrets.%s and config.%s: set one of them" $secret $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.secrets.clientCa.name (not .Values.secrets.tls.name) (not .Values.config.tls_cert) -}}
{{- fail "secrets.clientCa: needs secrets.tls" -}}
{{- end -}}
{{- $ports := list (int .Values.calls.port) (int .Values.administration.port) (int .Values.http.port) -}}
{{- if ne (len (uniq $ports)) 3 -}}
{{- fail "calls.port, administration.port, http.port: must differ" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: at most autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}
