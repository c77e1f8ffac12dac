"""The engine on a Ray cluster: the same program beyond one machine, with Ray's scheduler, object store and dashboard.

starting   connects to a cluster, or starts one of this machine alone
engine     the Engine interface in Ray's calls
hosting    what runs in Ray's workers: loads user code, tells errors
refs       our references around Ray's
errors     Ray's exceptions as ours, and back

Importing any module here but this one imports Ray.
"""
