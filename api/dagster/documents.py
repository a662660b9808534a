"""Every GraphQL document that the product sends to Dagster.

Dagster promises no stability for them, so a contract test validates each against the schema of
the installed version.
"""

from typing import Final

_PYTHON_ERROR: Final = """
fragment Failure on PythonError { message }
"""

ADD_PARTITION: Final = (
    """
mutation AddPartition($key: String!, $partitions: String!, $repository: RepositorySelector!) {
  result: addDynamicPartition(
    partitionKey: $key, partitionsDefName: $partitions, repositorySelector: $repository
  ) {
    __typename
    ... on UnauthorizedError { message }
    ...Failure
  }
}
"""
    + _PYTHON_ERROR
)

LAUNCH_RUN: Final = (
    """
mutation LaunchRun($params: ExecutionParams!) {
  result: launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PipelineNotFoundError { message }
    ... on RunConflict { message }
    ... on UnauthorizedError { message }
    ... on InvalidSubsetError { message }
    ... on PresetNotFoundError { message }
    ... on ConflictingExecutionParamsError { message }
    ... on NoModeProvidedError { message }
    ...Failure
  }
}
"""
    + _PYTHON_ERROR
)

RUN_STATUS: Final = (
    """
query RunStatus($run: ID!) {
  result: runOrError(runId: $run) {
    __typename
    ... on Run { status }
    ... on RunNotFoundError { message }
    ...Failure
  }
}
"""
    + _PYTHON_ERROR
)

TERMINATE_RUN: Final = (
    """
mutation TerminateRun($run: String!) {
  result: terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
    __typename
    ... on TerminateRunFailure { message run { status } }
    ... on RunNotFoundError { message }
    ... on UnauthorizedError { message }
    ...Failure
  }
}
"""
    + _PYTHON_ERROR
)

RELOAD_LOCATION: Final = (
    """
mutation ReloadLocation($location: String!) {
  result: reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry {
      locationOrLoadError { __typename ...Failure }
    }
    ... on ReloadNotSupported { message }
    ... on RepositoryLocationNotFound { message }
    ... on UnauthorizedError { message }
    ...Failure
  }
}
"""
    + _PYTHON_ERROR
)

STATE: Final = (
    """
query State($location: String!, $syncs: String!) {
  result: version
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  location: workspaceLocationEntryOrError(name: $location) { ...Location }
  syncs: workspaceLocationEntryOrError(name: $syncs) { ...Location }
}

fragment Location on WorkspaceLocationEntryOrError {
  __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename ...Failure } }
  ...Failure
}
"""
    + _PYTHON_ERROR
)

DOCUMENTS: Final = (
    ADD_PARTITION,
    LAUNCH_RUN,
    RUN_STATUS,
    TERMINATE_RUN,
    RELOAD_LOCATION,
    STATE,
)
