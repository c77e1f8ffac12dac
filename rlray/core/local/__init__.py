"""The embedded engine: tasks and actors on the processes of one machine.

zygote   a clean, single-threaded process that forks all others in milliseconds
node     grants workers to callers (scheduler), hands out shared memory (store), tells who has printed
client   the owner's half, in the driver and in every worker: submits, owns, gets
worker   the executing half: runs tasks and actor methods
"""
