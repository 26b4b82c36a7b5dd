{{/*
Capture for a model's pod. Named templates go into the pod's spec, all given the same values
(charts/govern-sidecar/README.md shows a whole pod):

  image       your build of charts/Dockerfile                               required
  bus         kafka://host:port                                             required
  service     name of the inference service                                 required
  upstream    the model server's HTTP port in this pod                      required by govern.mirror.proxy
  port        the proxy's port, which the pod's Service must name instead   8080
  grpcUpstream  the model server's gRPC port in this pod                    required by govern.mirror.grpc
  grpcPort    the gRPC proxy's port, which the Service must name instead    8081
  config      ConfigMap with the key mirror.yaml: rules, sampling, redaction, fan_out, tls, ...
              (docs/capture/configuration.md); what is said here goes first
  secrets     {name of a Secret: folder}: its keys become files there, in every container of capture; for the
              certificates, keys and password files that the configuration or the bus URL names
  redactionKey  {secretName, key} of the key that redaction hashes and tokenises with, for the shipper alone
  namespace, model, revision, endpoint, samplingRate                        as MirrorConfig has them
  spoolSize   memory for what is captured and not yet on the bus            128Mi
  diskSize    disk for what does not fit while the bus is away              2Gi
  proxy.resources, grpc.resources, shipper.resources
*/}}

{{/* For `containers:`. Relays the model's traffic; appends each inference to the spool. */}}
{{- define "govern.mirror.proxy" -}}
- name: govern-proxy
  image: {{ required "the sidecar needs `image`: your build of charts/Dockerfile" .image }}
  args: {{ include "govern.mirror.args" (dict "values" . "command" "proxy") }}
  env:
    - {name: GOVERN_MIRROR_LISTEN, value: "0.0.0.0:{{ .port | default 8080 }}"}
    - {name: GOVERN_MIRROR_UPSTREAM, value: "http://127.0.0.1:{{ required "the sidecar needs `upstream`: the model server's port" .upstream }}"}
    {{- include "govern.mirror.env" . | nindent 4 }}
  ports:
    - {name: govern-http, containerPort: {{ .port | default 8080 }}}
  readinessProbe:
    tcpSocket: {port: govern-http}
  lifecycle:
    # Until every node has learnt that this pod is no longer an endpoint; then SIGTERM, and requests under way end.
    preStop: {sleep: {seconds: 5}}
  resources: {{- toYaml ((.proxy | default dict).resources | default (dict
    "requests" (dict "cpu" "100m" "memory" "192Mi") "limits" (dict "memory" "512Mi"))) | nindent 4 }}
  {{- include "govern.mirror.security" . | nindent 2 }}
{{- end }}

{{/* For `containers:`. The same for the model's gRPC port. */}}
{{- define "govern.mirror.grpc" -}}
- name: govern-grpc
  image: {{ required "the sidecar needs `image`: your build of charts/Dockerfile" .image }}
  args: {{ include "govern.mirror.args" (dict "values" . "command" "grpc") }}
  env:
    - {name: GOVERN_MIRROR_GRPC_LISTEN, value: "0.0.0.0:{{ .grpcPort | default 8081 }}"}
    - {name: GOVERN_MIRROR_GRPC_UPSTREAM, value: "http://127.0.0.1:{{ required "the sidecar needs `grpcUpstream`: the model server's gRPC port" .grpcUpstream }}"}
    {{- include "govern.mirror.env" . | nindent 4 }}
  ports:
    - {name: govern-grpc, containerPort: {{ .grpcPort | default 8081 }}}
  readinessProbe:
    tcpSocket: {port: govern-grpc}
  lifecycle:
    preStop: {sleep: {seconds: 5}}
  resources: {{- toYaml ((.grpc | default dict).resources | default (dict
    "requests" (dict "cpu" "100m" "memory" "192Mi") "limits" (dict "memory" "512Mi"))) | nindent 4 }}
  {{- include "govern.mirror.security" . | nindent 2 }}
{{- end }}

{{/* For `initContainers:`, where `restartPolicy: Always` makes it a sidecar that ends after the others, with nothing
left in the spool. */}}
{{- define "govern.mirror.shipper" -}}
- name: govern-shipper
  restartPolicy: Always
  image: {{ .image }}
  args: {{ include "govern.mirror.args" (dict "values" . "command" "ship") }}
  env:
    {{- with .redactionKey }}
    - name: GOVERN_REDACTION_KEY
      valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: {{ .key }}}}
    {{- end }}
    - {name: GOVERN_BUS, value: {{ required "the sidecar needs `bus`: kafka://host:port" .bus | quote }}}
    - {name: GOVERN_MIRROR_METRICS_LISTEN, value: "0.0.0.0:9464"}
    {{- include "govern.mirror.env" . | nindent 4 }}
  ports:
    - {name: metrics, containerPort: 9464}
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    initialDelaySeconds: 10
    failureThreshold: 6
  resources: {{- toYaml ((.shipper | default dict).resources | default (dict
    "requests" (dict "cpu" "50m" "memory" "192Mi") "limits" (dict "memory" "512Mi"))) | nindent 4 }}
  {{- include "govern.mirror.security" . | nindent 2 }}
{{- end }}

{{/* For `volumes:`. */}}
{{- define "govern.mirror.volumes" -}}
- name: govern-spool
  emptyDir: {medium: Memory, sizeLimit: {{ .spoolSize | default "128Mi" }}}
- name: govern-disk
  emptyDir: {sizeLimit: {{ .diskSize | default "2Gi" }}}
{{- with .config }}
- name: govern-config
  configMap: {name: {{ . }}}
{{- end }}
{{- range $secret, $folder := .secrets }}
- name: govern-secret-{{ $secret }}
  secret: {secretName: {{ $secret }}}
{{- end }}
{{- end }}

{{- define "govern.mirror.args" -}}
[mirror, {{ .command }}{{ if .values.config }}, --config, /etc/govern/mirror.yaml{{ end }}]
{{- end }}

{{- define "govern.mirror.env" -}}
- {name: GOVERN_NAMESPACE, value: {{ .namespace | default "default" | quote }}}
- {name: GOVERN_MIRROR_SERVICE, value: {{ required "the sidecar needs `service`" .service | quote }}}
- name: GOVERN_MIRROR_POD
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- with .model }}
- {name: GOVERN_MIRROR_MODEL, value: {{ . | quote }}}
{{- end }}
{{- with .revision }}
- {name: GOVERN_MIRROR_REVISION, value: {{ . | quote }}}
{{- end }}
{{- with .endpoint }}
- {name: GOVERN_MIRROR_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if not (kindIs "invalid" .samplingRate) }}
- {name: GOVERN_MIRROR_SAMPLING_RATE, value: {{ .samplingRate | quote }}}
{{- end }}
# Folders below the volumes: the mirror wants them for its own user alone, and makes them so.
- {name: GOVERN_MIRROR_SPOOL_DIR, value: /var/run/govern/spool/segments}
- {name: GOVERN_MIRROR_SPOOL_BYTES, value: {{ include "govern.mirror.bytes" (.spoolSize | default "128Mi") | quote }}}
- {name: GOVERN_MIRROR_DISK_DIR, value: /var/run/govern/disk/segments}
- {name: GOVERN_MIRROR_DISK_BYTES, value: {{ include "govern.mirror.bytes" (.diskSize | default "2Gi") | quote }}}
{{- end }}

{{/* Bytes for the mirror's own limit: nine tenths of a volume of "128Mi" or "2Gi", the rest for its other files. */}}
{{- define "govern.mirror.bytes" -}}
{{- $unit := regexFind "(Mi|Gi)$" . -}}
{{- if not (regexMatch "^[0-9]+(Mi|Gi)$" .) }}{{ fail (printf "spoolSize and diskSize are whole Mi or Gi, not %q" .) }}{{ end -}}
{{- $number := trimSuffix $unit . | int64 -}}
{{- $bytes := ternary (mul $number 1048576) (mul $number 1073741824) (eq $unit "Mi") -}}
{{- div (mul $bytes 9) 10 -}}
{{- end }}

{{- define "govern.mirror.security" -}}
securityContext:
  runAsNonRoot: true
  # One user for both: the spool is private to it.
  runAsUser: 10001
  runAsGroup: 10001
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: govern-spool, mountPath: /var/run/govern/spool}
  - {name: govern-disk, mountPath: /var/run/govern/disk}
  {{- if .config }}
  - {name: govern-config, mountPath: /etc/govern, readOnly: true}
  {{- end }}
  {{- range $secret, $folder := .secrets }}
  - {name: govern-secret-{{ $secret }}, mountPath: {{ $folder }}, readOnly: true}
  {{- end }}
{{- end }}
