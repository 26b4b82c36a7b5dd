{{- define "govern.name" -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of one component: (dict "root" $ "component" "worker"). */}}
{{- define "govern.selector" -}}
app.kubernetes.io/name: govern
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "govern.labels" -}}
{{ include "govern.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "govern.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/*
One component as a Deployment: (dict "root" $ "component" "worker" "replicas" 1 "strategy" "Recreate" "args" (list ...)
"env" (list ...) "port" 8080 "volume" {...} "mountPath" "/etc/govern" "writable" true "settings" .Values.worker).
A command of the mirror has its metrics' address among its `args`, and says so: "mirror" true. "spool" "512Mi" is memory
that the containers share, "sidecar" another dictionary like this one, of a container that starts first and ends last.
A component that shows health and metrics on the port that it serves names that "portName"; "grpcPort" is a second one.
With "stateful" true it is a StatefulSet, for what its pods keep under their names elsewhere.
Only the components differ; how a pod of govern is secured, probed and ended is written here once.
*/}}
{{- define "govern.deployment" -}}
{{- $values := .root.Values -}}
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" (.stateful | default false) }}
metadata:
  name: {{ include "govern.name" .root }}-{{ .component }}
  labels: {{- include "govern.labels" . | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  selector:
    matchLabels: {{- include "govern.selector" . | nindent 6 }}
  {{- if .stateful }}
  # No pod waits for another one, and none is called by its name.
  podManagementPolicy: Parallel
  serviceName: ""
  {{- else }}
  strategy:
    type: {{ .strategy | default "RollingUpdate" }}
  {{- end }}
  template:
    metadata:
      labels: {{- include "govern.labels" . | nindent 8 }}
    spec:
      serviceAccountName: {{ include "govern.name" .root }}
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        # Else Kubernetes would open the audit log's private keys to the group at every start.
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      {{- with .settings.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .settings.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .sidecar }}
      initContainers:
        {{- include "govern.container" (merge (dict "root" $.root "restartPolicy" "Always" "spool" $.spool
            "volume" $.volume "mountPath" $.mountPath "writable" false) .) | nindent 8 }}
      {{- end }}
      containers:
        {{- include "govern.container" . | nindent 8 }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
        {{- with .volume }}
        - name: data
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with .spool }}
        - name: spool
          emptyDir: {medium: Memory, sizeLimit: {{ . }}}
        {{- end }}
{{- end }}

{{- define "govern.container" -}}
{{- $values := .root.Values -}}
- name: {{ .component }}
  image: {{ include "govern.image" .root }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  args: {{- toYaml (concat .args .settings.extraArgs) | nindent 4 }}
  env:
    - {name: GOVERN_BUS, value: {{ $values.bus | quote }}}
    - {name: GOVERN_NAMESPACE, value: {{ $values.namespace | quote }}}
    {{- if not .mirror }}
    - {name: GOVERN_METRICS_HOST, value: "0.0.0.0"}
    - {name: GOVERN_METRICS_PORT, value: {{ $values.monitoring.metricsPort | quote }}}
    {{- end }}
    {{- with $values.otlpEndpoint }}
    - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- with concat (.env | default list) .settings.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- if not .portName }}
    - {name: metrics, containerPort: {{ $values.monitoring.metricsPort }}}
    {{- end }}
    {{- with .port }}
    - {name: {{ $.portName | default "http" }}, containerPort: {{ . }}}
    {{- end }}
    {{- with .grpcPort }}
    - {name: grpc, containerPort: {{ . }}}
    {{- end }}
  livenessProbe:
    httpGet: {path: /healthz, port: {{ .portName | default "metrics" }}}
    initialDelaySeconds: 10
    periodSeconds: 10
    failureThreshold: 6
  readinessProbe:
    {{- if and .port (not .portName) }}
    tcpSocket: {port: http}
    {{- else }}
    httpGet: {path: /healthz, port: {{ .portName | default "metrics" }}}
    {{- end }}
  {{- if .port }}
  lifecycle:
    # Until every node has learnt that this pod is no longer an endpoint.
    preStop: {sleep: {seconds: 5}}
  {{- end }}
  resources: {{- toYaml .settings.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- if .volume }}
    - {name: data, mountPath: {{ .mountPath }}, readOnly: {{ not .writable }}}
    {{- end }}
    {{- if .spool }}
    - {name: spool, mountPath: /var/run/govern/spool}
    {{- end }}
{{- end }}

{{- define "govern.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "govern.name" .root }}-{{ .component }}
  labels: {{- include "govern.labels" . | nindent 4 }}
spec:
  selector: {{- include "govern.selector" . | nindent 4 }}
  ports:
    - {name: http, port: 80, targetPort: {{ .portName | default "http" }}}
    {{- with .grpcPort }}
    - {name: grpc, port: {{ . }}, targetPort: grpc}
    {{- end }}
  {{- with .affinity }}
  sessionAffinity: {{ . }}
  {{- end }}
{{- end }}

{{/* An environment variable from a Secret: (dict "name" "X" "from" {secretName, key}). */}}
{{- define "govern.secretEnv" -}}
name: {{ .name }}
valueFrom:
  secretKeyRef:
    name: {{ .from.secretName }}
    key: {{ .from.key }}
{{- end }}

{{/* An environment variable that is the pod's name: (dict "name" "X"). */}}
{{- define "govern.podNameEnv" -}}
name: {{ .name }}
valueFrom:
  fieldRef:
    fieldPath: metadata.name
{{- end }}
