module winnow.dev/cluster/tools/pause

go 1.26

tool winnow.dev/cluster/tools/pause
