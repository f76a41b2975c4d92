// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {KeyCaps} from "../../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Attack} from "./Attack.sol";
import {HostileWallet, OwnedWallet} from "./Wallets.sol";

/// @title Attacks 1 to 12: signatures and receipts
/// @notice 8, self-destruct and undeployed wallets (ERC-6492): a wallet without code accepts nothing here, and an
/// answer is used in the call that asked for it. 10, truncated lists: no contract returns a list without a fixed
/// length.
contract SignaturesAttack is Attack {
    /// @dev An item whose numbers may be wider than their fields.
    struct WideItem {
        bytes32 sessionId;
        uint256 throughSeq;
        uint256 amount;
        bytes32 receiptsRoot;
        bytes32 r;
        bytes32 vs;
    }

    function test_Attack01_ASignatureOfAnotherChainDoesNothing() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        SettleItem memory item = _item(key, sessionId, 1, 40);
        _deposit(100);
        terms.salt = bytes32("another");
        bytes memory signature = _signOpen(buyer, terms);
        bytes32 before = escrow.DOMAIN_SEPARATOR();

        vm.chainId(1);
        assertNotEq(escrow.DOMAIN_SEPARATOR(), before, "01: the domain names the chain");
        _settleOne(item);
        assertEq(_earnings(nodeId), 0, "01: a voucher of another chain pays nothing");
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, signature));
        _refused(
            stranger, address(escrow), call, IEscrow.Escrow_WrongSigner.selector, "01: nothing opens on another chain"
        );
    }

    function test_Attack02_ASignatureForAnotherEscrowDoesNothing() public {
        Open memory terms = _terms(100);
        bytes32 sessionId = escrow.sessionIdOf(terms);
        _deposit(100);
        vm.prank(buyer.addr);
        escrow.openOneSession(terms, "");
        (bytes32 r, bytes32 s, uint8 v) = _signRaw(buyer, sessionId);
        SettleItem memory item = _item(key, sessionId, 1, 40);

        // The same code with the same arguments and the same parties, once more.
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        escrow = _deployEscrow(address(token), registryAt, treasury, MAX_SESSION);
        registry = _deployRegistry(address(token), address(escrow), UNSTAKE_DELAY);
        court = _deployCourt(address(escrow), _courtRules());
        _fund(buyer.addr);
        _fund(provider);
        assertEq(_serve(provider, nodeKey.addr, settler), terms.nodeId);
        _deposit(100);

        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, abi.encodePacked(r, s, v)));
        _refused(
            stranger, address(escrow), call, IEscrow.Escrow_WrongSigner.selector, "02: nothing opens in another escrow"
        );
        _settleOne(item);
        assertEq(_earnings(nodeId), 0, "02: a voucher for another escrow pays nothing");
    }

    function test_Attack03_NoJobIsPaidTwice() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        SettleItem memory item = _item(key, sessionId, 1, 10);
        _settle(item, item);
        _settleOne(item);
        assertEq(_earnings(nodeId), 10, "03: a voucher pays once");

        _settleOne(sessionId, 2, 25);
        assertEq(_earnings(nodeId), 25, "03: a newer voucher pays only what is new");

        bytes memory call = abi.encodeCall(IEscrow.claim, (terms, _one(_job(terms, 2, 15))));
        vm.prank(settler);
        (bool ok,) = address(escrow).call(call);
        assertFalse(ok, "03: what a voucher paid cannot be claimed");
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_two(terms, terms));
        _settleOne(_item(key, sessionId, 3, 90));
        assertEq(_earnings(nodeId), 25, "03: what was returned is not paid");
        assertEq(escrow.accountOf(buyer.addr), 75, "03: what was paid is not returned");
    }

    function test_Attack04_ASecondFormOfASignatureIsNoSecondMessage() public {
        Open memory terms = _terms(10);
        _deposit(30);
        bytes32 structHash = Messages.hash(terms);
        bytes memory good = _sign(buyer, structHash);
        bytes memory low = _sign(buyer, structHash);
        low[64] = bytes1(uint8(low[64]) - 27);
        bytes4 error = IEscrow.Escrow_WrongSigner.selector;
        bytes memory high = _signHigh(buyer, structHash);
        string memory rule = "04: only low s and v of 27 or 28 were signed by anybody";
        _refused(stranger, address(escrow), abi.encodeCall(IEscrow.openOneSession, (terms, high)), error, rule);
        _refused(stranger, address(escrow), abi.encodeCall(IEscrow.openOneSession, (terms, low)), error, rule);

        escrow.openOneSession(terms, good);
        escrow.openOneSession(terms, _signShort(buyer, structHash));
        assertEq(escrow.accountOf(buyer.addr), 20, "04: the short form of a used signature moves nothing");
    }

    function test_Attack05_NobodySignsNothing() public {
        _deposit(100);
        Open memory terms = _terms(100);
        terms.key = address(0);
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, ""));
        vm.prank(buyer.addr);
        (bool ok,) = address(escrow).call(call);
        assertFalse(ok, "05: no session is of nobody's key");
        call = abi.encodeCall(IEscrow.setKey, (address(0), KeyCaps(9, 9, 9, START + 1, 0)));
        _refused(buyer.addr, address(escrow), call, IEscrow.Escrow_ZeroKey.selector, "05: nobody is no key");
        call = abi.encodeCall(INodeRegistry.addNode, (address(0), bytes32(0), settler, ""));
        _refused(
            provider, address(registry), call, INodeRegistry.NodeRegistry_ZeroAddress.selector, "05: nobody is no node"
        );
        // A signature that recovers to nobody.
        _settleOne(SettleItem(escrow.sessionIdOf(terms), 1, 100, ROOT, 0, 0));
        assertEq(_earnings(nodeId), 0, "05: a signature by nobody pays nothing");
    }

    function test_Attack06_WhatIsSignedIsWhatIsWrittenDown() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Wattline"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        bytes32 openType = keccak256(
            "Open(address buyer,address key,uint32 nodeId,uint128 amount,"
            "uint48 openBefore,uint48 expiresAt,bytes32 salt)"
        );
        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, keccak256(abi.encode(openType, terms)));
        assertEq(digest, sessionId, "06: a session's id is the digest that wallets show");

        bytes32 voucherType =
            keccak256("Voucher(bytes32 sessionId,uint32 throughSeq,uint128 amount,bytes32 receiptsRoot)");
        bytes32 structHash = keccak256(abi.encode(voucherType, sessionId, uint32(1), uint128(40), ROOT));
        digest = MessageHashUtils.toTypedDataHash(domain, structHash);
        (bytes32 r, bytes32 vs) = vm.signCompact(key.secret, digest);
        _settleOne(SettleItem(sessionId, 1, 40, ROOT, r, vs));
        assertEq(_earnings(nodeId), 40, "06: a voucher by the published type pays");
    }

    function test_Attack07_TwoWalletsOfOneOwnerShareNoSignature() public {
        Actor memory owner = _actor("owner of two wallets");
        address first = address(new OwnedWallet(owner.addr));
        address second = address(new OwnedWallet(owner.addr));
        _fund(second);
        vm.prank(second);
        escrow.deposit(100);
        Open memory terms = _terms(100);
        terms.buyer = first;
        (bytes32 r, bytes32 s, uint8 v) = _signRaw(owner, escrow.sessionIdOf(terms));

        terms.buyer = second;
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, abi.encode(r, s, v)));
        _refused(
            stranger, address(escrow), call, IEscrow.Escrow_WrongSigner.selector, "07: a signature is for one wallet"
        );
        assertEq(escrow.accountOf(second), 100, "07: the second wallet keeps its money");
    }

    function test_Attack08_AHostileWalletHurtsNobodyElse() public {
        HostileWallet wallet = new HostileWallet(address(escrow));
        _fund(address(wallet));
        vm.prank(address(wallet));
        escrow.deposit(100);
        Open memory terms = _terms(10);
        terms.buyer = address(wallet);
        for (uint8 i = 0; i < 3; ++i) {
            wallet.setMode(HostileWallet.Mode(i));
            terms.salt = bytes32(uint256(i));
            bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, "any"));
            uint256 before = gasleft();
            (bool ok,) = address(escrow).call{gas: 5_000_000}(call);
            assertLt(before - gasleft(), 400_000, "08: a wallet burns no more gas than it is given");
            if (ok) assertEq(_held(escrow.sessionIdOf(terms)).deposited, 10, "08: a wallet that answers opens once");
        }
        assertEq(token.balanceOf(address(escrow)), 100, "08: a wallet that is asked moves no money");
    }

    function test_Attack09_NumbersThatDoNotFitAreRefused() public {
        (, bytes32 sessionId) = _session(100);
        uint256 seq = uint256(1 << 33) | 1;
        bytes32 digest = _digest(keccak256(abi.encode(Messages.VOUCHER_TYPEHASH, sessionId, seq, 40, ROOT)));
        (bytes32 r, bytes32 vs) = vm.signCompact(key.secret, digest);
        WideItem[] memory items = new WideItem[](1);
        items[0] = WideItem(sessionId, seq, 40, ROOT, r, vs);
        vm.prank(settler);
        (bool ok,) = address(escrow).call(abi.encodeWithSelector(IEscrow.settle.selector, items));
        assertTrue(ok, "09: a bad item is skipped");
        assertEq(_held(sessionId).nodeId, nodeId, "09: a wide number does not reach the field beside");
        assertEq(_earnings(nodeId), 0, "09: a wide number pays nothing");
    }

    function test_Attack10_NobodyPosesAsRegistryEscrowOrCourt() public {
        bytes memory call = abi.encodeCall(IEscrow.setSettler, (nodeId, stranger));
        _refused(stranger, address(escrow), call, IEscrow.Escrow_NotRegistry.selector, "10: only the registry tells");
        call = abi.encodeCall(IEscrow.setNode, (nodeId, stranger, 1, true));
        _refused(stranger, address(escrow), call, IEscrow.Escrow_NotRegistry.selector, "10: only the registry tells");
        call = abi.encodeCall(IEscrow.resolve, (ROOT, key.addr, stranger, 1, false));
        _refused(stranger, address(escrow), call, IEscrow.Escrow_NotCourt.selector, "10: only the court decides");
        call = abi.encodeCall(INodeRegistry.unlock, (provider, 0));
        bytes4 error = INodeRegistry.NodeRegistry_NotEscrow.selector;
        _refused(stranger, address(registry), call, error, "10: only the escrow locks and unlocks");
        call = abi.encodeCall(INodeRegistry.release, (stranger, 0));
        error = INodeRegistry.NodeRegistry_NotCourt.selector;
        _refused(stranger, address(registry), call, error, "10: only the court pays out");
    }

    function test_Attack11_ARevokedKeyAndARotatedOneEndAtOnce() public {
        vm.prank(buyer.addr);
        escrow.setKey(key.addr, KeyCaps(100, 100, 100, START + 30 days, 0));
        _deposit(100);
        Open memory terms = _terms(50);
        bytes memory signature = _signOpen(key, terms);
        vm.prank(buyer.addr);
        escrow.revokeKey(key.addr);
        bytes memory call = abi.encodeCall(IEscrow.openOneSession, (terms, signature));
        bytes4 error = IEscrow.Escrow_KeyExpired.selector;
        _refused(stranger, address(escrow), call, error, "11: a revoked key opens nothing it signed before");

        bytes32 sessionId = _openOne(terms);
        Actor memory next = _actor("next node key");
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, next.addr, 0);
        call = abi.encodeCall(IEscrow.close, (terms, 0, _signClose(next, sessionId, 0)));
        error = IEscrow.Escrow_WrongSigner.selector;
        _refused(stranger, address(escrow), call, error, "11: a session stays under the key it opened with");
        SignedReceipt memory job = _job(terms, 1, 20);
        job.receiptSignature = _sign(next, Messages.hash(job.receipt));
        vm.prank(settler);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.claim, (terms, _one(job))));
        assertFalse(ok, "11: a receipt of another epoch claims nothing");
    }

    function test_Attack12_MessagesMayComeInAnyOrder() public {
        KeyGrant memory third = _grant(30, 3);
        KeyGrant memory second = _grant(20, 2);
        bytes memory call = abi.encodeCall(IEscrow.setKeyBySig, (third, _sign(buyer, Messages.hash(third))));
        _works(stranger, address(escrow), call, "12: a grant does not wait for those before it");
        escrow.setKeyBySig(second, _sign(buyer, Messages.hash(second)));
        assertEq(escrow.keyOf(buyer.addr, key.addr).total, 30, "12: an older grant does not undo a newer one");

        (, bytes32 a) = _session(100, 1);
        (, bytes32 b) = _session(100, 2);
        _settle(_item(key, b, 9, 50), _item(key, a, 5, 40));
        _settle(_item(key, b, 3, 20), _item(key, a, 7, 60));
        assertEq(_earnings(nodeId), 110, "12: the newest voucher of each session counts, however they arrive");
    }

    function _signRaw(Actor memory signer, bytes32 digest) private pure returns (bytes32 r, bytes32 s, uint8 v) {
        (v, r, s) = vm.sign(signer.secret, digest);
    }
}
