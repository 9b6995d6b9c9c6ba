#!/usr/bin/env bash
# Removes from a namespace what bears our label, such as ConfigMaps of earlier settings, and fails if
# anything stays. usage: undeploy.sh NAMESPACE
set -euo pipefail
namespace=$1
owner=app.kubernetes.io/part-of=hearth
kinds=deployments.apps,jobs.batch,services,configmaps,serviceaccounts,roles.rbac.authorization.k8s.io
kinds+=,rolebindings.rbac.authorization.k8s.io,poddisruptionbudgets.policy
kinds+=,horizontalpodautoscalers.autoscaling,networkpolicies.networking.k8s.io,persistentvolumeclaims
kubectl delete --ignore-not-found -n "$namespace" -l "$owner" "$kinds"
left=$(kubectl get -n "$namespace" -l "$owner" "$kinds" -o name)
[[ -z $left ]] || { printf 'left in %s:\n%s\n' "$namespace" "$left" >&2; exit 1; }
echo "nothing of Hearth is left in $namespace"
