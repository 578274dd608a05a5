{{- define "tollgate.probe" -}}
grpc: { port: {{ int .root.Values.http.port }}, service: tollgate.{{ .service }} }
{{ toYaml .of }}
{{- end -}}

{{- define "tollgate.env" -}}
{{- $redis := .Values.ledger.redis -}}
{{- if $redis.urlFromSecret.name }}
- name: TOLLGATE_LEDGER
  valueFrom: { secretKeyRef: { name: {{ $redis.urlFromSecret.name | quote }}, key: {{ $redis.urlFromSecret.key | quote }} } }
{{- else if $redis.auth.secret }}
- name: REDIS_USERNAME
  valueFrom: { secretKeyRef: { name: {{ $redis.auth.secret | quote }}, key: {{ $redis.auth.usernameKey | quote }} } }
- name: REDIS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $redis.auth.secret | quote }}, key: {{ $redis.auth.passwordKey | quote }} } }
{{- $parts := splitn "://" 2 $redis.url }}
- name: TOLLGATE_LEDGER
  value: {{ printf "%s://$(REDIS_USERNAME):$(REDIS_PASSWORD)@%s" $parts._0 $parts._1 | quote }}
{{- end }}
{{- with .Values.secrets.smtpUrl }}
{{- if .name }}
- name: TOLLGATE_NOTICES_SMTP_URL
  valueFrom: { secretKeyRef: { name: {{ .name | quote }}, key: {{ .key | quote }} } }
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The container, without its dash. */}}
{{- define "tollgate.container" -}}
{{- $sidecar := eq .Values.shape "sidecar" -}}
{{- $native := and $sidecar .Values.sidecar.native -}}
name: tollgate
image: {{ include "tollgate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if $native }}
restartPolicy: Always
{{- end }}
args: [serve, --config, /etc/tollgate/tollgate.toml]
{{- with include "tollgate.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
ports:
  {{- if not $sidecar }}
  - { name: calls, containerPort: {{ int .Values.calls.port }}, protocol: TCP }
  {{- if .Values.administration.expose }}
  - { name: administration, containerPort: {{ int .Values.administration.port }}, protocol: TCP }
  {{- end }}
  {{- end }}
  - { name: {{ ternary "tollgate-http" "http" $sidecar }}, containerPort: {{ int .Values.http.port }}, protocol: TCP }
startupProbe:
  {{- include "tollgate.probe" (dict "root" . "service" "startup" "of" .Values.probes.startup) | nindent 2 }}
livenessProbe:
  {{- include "tollgate.probe" (dict "root" . "service" "liveness" "of" .Values.probes.liveness) | nindent 2 }}
{{- if or (not $sidecar) .Values.sidecar.readiness }}
readinessProbe:
  {{- include "tollgate.probe" (dict "root" . "service" "readiness" "of" .Values.probes.readiness) | nindent 2 }}
{{- end }}
{{- /* A native sidecar is stopped when the SBC has ended: nobody is left to wait for. */}}
{{- if and (not $native) (gt (int .Values.termination.preStopSeconds) 0) }}
lifecycle:
  preStop: { sleep: { seconds: {{ int .Values.termination.preStopSeconds }} } }
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 .Values.security.runAsUser }}
  runAsGroup: {{ int64 .Values.security.runAsGroup }}
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
volumeMounts:
  - { name: tollgate-config, mountPath: /etc/tollgate, readOnly: true }
  - { name: tollgate-tmp, mountPath: /tmp }
  {{- if eq .Values.ledger.kind "file" }}
  - { name: tollgate-ledger, mountPath: /var/lib/tollgate/ledger }
  {{- end }}
  {{- if ne .Values.journal.storage "none" }}
  - { name: tollgate-journal, mountPath: /var/lib/tollgate/journal }
  {{- end }}
  {{- if include "tollgate.secretFiles" . }}
  - { name: tollgate-secrets, mountPath: /etc/tollgate-secrets, readOnly: true }
  {{- end }}
  {{- if .Values.calls.unixSocket }}
  - { name: tollgate-socket, mountPath: /run/tollgate }
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Sources of the volume of secrets: files that the settings name. What changes in a Secret changes in the volume. */}}
{{- define "tollgate.secretFiles" -}}
{{- with .Values.secrets -}}
{{- if .webhookSecrets.name }}
- secret: { name: {{ .webhookSecrets.name | quote }}, items: [{ key: {{ .webhookSecrets.key | quote }}, path: webhook-secrets }] }
{{- end }}
{{- if .identities.name }}
- secret: { name: {{ .identities.name | quote }}, items: [{ key: {{ .identities.key | quote }}, path: identities.toml }] }
{{- end }}
{{- if .tokenKeys.name }}
- secret: { name: {{ .tokenKeys.name | quote }}, items: [{ key: {{ .tokenKeys.key | quote }}, path: token-keys }] }
{{- end }}
{{- if .tls.name }}
- secret: { name: {{ .tls.name | quote }}, items: [{ key: {{ .tls.certificateKey | quote }}, path: tls.crt }, { key: {{ .tls.privateKey | quote }}, path: tls.key }] }
{{- end }}
{{- if .clientCa.name }}
- secret: { name: {{ .clientCa.name | quote }}, items: [{ key: {{ .clientCa.key | quote }}, path: client-ca.crt }] }
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tollgate.volumes" -}}
- name: tollgate-config
  configMap: { name: {{ include "tollgate.fullname" . }} }
- name: tollgate-tmp
  emptyDir: { sizeLimit: {{ .Values.tmpSize | quote }} }
{{- if eq .Values.journal.storage "emptyDir" }}
- name: tollgate-journal
  # No size limit: beyond one the pod is evicted, and the journal with it.
  emptyDir: {}
{{- end }}
{{- with include "tollgate.secretFiles" . }}
- name: tollgate-secrets
  projected:
    defaultMode: 288
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- if .Values.calls.unixSocket }}
- name: tollgate-socket
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
For the chart of an SBC that has this one as a dependency, with .Subcharts.tollgate as argument:
  tollgate.sidecar                 the container, an item of initContainers (sidecar.native) or of containers
  tollgate.sidecar.volumes         items of volumes
  tollgate.sidecar.socketMount     item of the SBC container's volumeMounts, where calls.unixSocket is set
  tollgate.sidecar.annotations     annotations of the pod: a changed configuration makes new pods
  tollgate.terminationSeconds      what the SBC's own time to end is to be lengthened by
*/}}
{{- define "tollgate.sidecar" -}}
{{- if ne .Values.shape "sidecar" -}}
{{- fail "tollgate.sidecar: set tollgate.shape to sidecar" -}}
{{- end -}}
- {{ include "tollgate.container" . | indent 2 | trim }}
{{- end -}}

{{- define "tollgate.sidecar.volumes" -}}
{{ include "tollgate.volumes" . }}
{{- end -}}

{{- define "tollgate.sidecar.socketMount" -}}
{{- if .Values.calls.unixSocket -}}
- { name: tollgate-socket, mountPath: /run/tollgate }
{{- end -}}
{{- end -}}

{{- define "tollgate.sidecar.annotations" -}}
checksum/tollgate: {{ include "tollgate.configuration" . | sha256sum }}
{{- end -}}
