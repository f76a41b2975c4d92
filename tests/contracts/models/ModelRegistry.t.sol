// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test, Vm} from "forge-std/Test.sol";
import {IModelRegistry} from "./../../../contracts/interfaces/IModelRegistry.sol";

contract ModelRegistryTest is Test {
    bytes32 private constant _FIRST = keccak256("first manifest");
    bytes32 private constant _SECOND = keccak256("second manifest");
    string private constant _NAME = "smollm2";

    IModelRegistry private _models;
    address private _publisher = makeAddr("publisher");
    address private _stranger = makeAddr("stranger");

    function setUp() public {
        _models = IModelRegistry(deployCode("ModelRegistry.sol:ModelRegistry"));
        vm.startPrank(_publisher);
        _models.publish(_FIRST, "https://first");
        _models.publish(_SECOND, "");
        vm.stopPrank();
    }

    /* PUBLISH */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_AnyonePublishesAnyModelAndSaysWhereItIs(address caller, bytes32 modelId) public {
        vm.assume(modelId != 0 && modelId != _FIRST && modelId != _SECOND);
        assertFalse(_models.isPublished(modelId));
        vm.expectEmit(address(_models));
        emit IModelRegistry.ModelPublished(modelId, caller, "ipfs://model");
        vm.prank(caller);
        _models.publish(modelId, "ipfs://model");
        assertTrue(_models.isPublished(modelId));
    }

    function test_PublishingAgainSaysAnotherPlaceAndChangesNothingElse() public {
        vm.prank(_publisher);
        _models.release(_NAME, "1.0", _FIRST);
        vm.expectEmit(address(_models));
        emit IModelRegistry.ModelPublished(_FIRST, _stranger, "https://mirror");
        vm.prank(_stranger);
        _models.publish(_FIRST, "https://mirror");
        _means("1.0", _FIRST, true);
        assertEq(_models.publisherOf(_NAME), _publisher);
    }

    function test_PublishRefusesTheModelOf0() public {
        vm.expectRevert(IModelRegistry.ModelRegistry_ZeroModel.selector);
        _models.publish(0, "https://nothing");
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PublishRefusesAPlaceLongerThan512Bytes(uint256 length) public {
        length = bound(length, 500, 2000);
        if (length > 512) {
            vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_UriTooLong.selector, length, 512));
        }
        _models.publish(keccak256("third"), _word(length, "u"));
        assertEq(_models.isPublished(keccak256("third")), length <= 512);
    }

    /* RELEASE */

    function test_ReleaseTakesAFreeNameAndMeansTheModelForGood() public {
        assertEq(_models.publisherOf(_NAME), address(0));
        vm.expectEmit(address(_models));
        emit IModelRegistry.NameTaken(_publisher, _NAME);
        vm.expectEmit(address(_models));
        emit IModelRegistry.VersionReleased(_FIRST, _publisher, _NAME, "1.0");
        vm.startPrank(_publisher);
        _models.release(_NAME, "1.0", _FIRST);
        assertEq(_models.publisherOf(_NAME), _publisher);
        _means("1.0", _FIRST, true);

        vm.recordLogs();
        _models.release(_NAME, "1.1", _SECOND);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1);
        assertEq(logs[0].topics[0], IModelRegistry.VersionReleased.selector);
        _means("1.0", _FIRST, true);
        _means("1.1", _SECOND, true);
    }

    function test_ReleaseRefusesAModelNobodyPublished() public {
        vm.startPrank(_publisher);
        vm.expectRevert(_notPublished(keccak256("third")));
        _models.release(_NAME, "1.0", keccak256("third"));
        vm.expectRevert(_notPublished(0));
        _models.release(_NAME, "1.0", 0);
        assertEq(_models.publisherOf(_NAME), address(0));
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_ReleaseRefusesAVersionThatStands(bool same) public {
        bytes32 modelId = same ? _FIRST : _SECOND;
        vm.startPrank(_publisher);
        _models.release(_NAME, "1.0", _FIRST);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_VersionStands.selector, modelId, _FIRST)
        );
        _models.release(_NAME, "1.0", modelId);
    }

    function test_ReleaseRefusesALabelThatIsAChannel() public {
        vm.startPrank(_publisher);
        _models.point(_NAME, "latest", _FIRST);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_ChannelStands.selector, _SECOND, _FIRST)
        );
        _models.release(_NAME, "latest", _SECOND);
        _means("latest", _FIRST, false);
    }

    /* POINT */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_PointMovesAChannelAsOftenAsItsPublisherLikes(bool[8] memory steps) public {
        vm.startPrank(_publisher);
        _models.release(_NAME, "1.0", _FIRST);
        for (uint256 i = 0; i < steps.length; ++i) {
            bytes32 modelId = steps[i] ? _FIRST : _SECOND;
            vm.expectEmit(address(_models));
            emit IModelRegistry.ChannelPointed(modelId, _publisher, _NAME, "latest");
            _models.point(_NAME, "latest", modelId);
            _means("latest", modelId, false);
        }
        _means("1.0", _FIRST, true);
    }

    function test_PointRefusesAModelNobodyPublished() public {
        vm.expectRevert(_notPublished(keccak256("third")));
        _models.point(_NAME, "latest", keccak256("third"));
        assertEq(_models.publisherOf(_NAME), address(0));
    }

    function test_PointRefusesALabelThatIsAVersion() public {
        vm.startPrank(_publisher);
        _models.release(_NAME, "1.0", _FIRST);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_VersionStands.selector, _SECOND, _FIRST)
        );
        _models.point(_NAME, "1.0", _SECOND);
        _means("1.0", _FIRST, true);
    }

    /* WHOSE */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_OnlyItsPublisherGivesTheNameLabels(address caller, bool first) public {
        vm.assume(caller != _publisher);
        vm.prank(_publisher);
        if (first) _models.release(_NAME, "1.0", _FIRST);
        else _models.point(_NAME, "latest", _FIRST);
        bytes memory reason =
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublisher.selector, caller, _publisher);
        vm.startPrank(caller);
        vm.expectRevert(reason);
        _models.release(_NAME, "2.0", _SECOND);
        vm.expectRevert(reason);
        _models.point(_NAME, "latest", _SECOND);
        assertEq(_models.publisherOf(_NAME), _publisher);
    }

    /// @dev This very contract deployed the register.
    function test_NobodyHasASayOverAnothersNames() public {
        vm.prank(_publisher);
        _models.point(_NAME, "latest", _FIRST);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublisher.selector, address(this), _publisher)
        );
        _models.point(_NAME, "latest", _SECOND);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_AliasesOfTwoPublishersNeverMeet(uint8 cut) public {
        // "a…ab" in two pieces, wherever it is cut: the pieces must not be taken for one another.
        uint256 at = bound(cut, 1, 19);
        string memory name = _word(at, "a");
        string memory label = string.concat(_word(20 - at, "a"), "b");
        vm.prank(_publisher);
        _models.point(name, label, _FIRST);
        for (uint256 other = 1; other < 20; ++other) {
            if (other == at) continue;
            (bytes32 modelId,) =
                _models.resolve(_word(other, "a"), string.concat(_word(20 - other, "a"), "b"));
            assertEq(modelId, 0);
            vm.prank(_stranger);
            _models.point(_word(other, "a"), "b", _SECOND);
        }
        (bytes32 kept,) = _models.resolve(name, label);
        assertEq(kept, _FIRST);
    }

    /* WORDS */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_WordsHave1To64Bytes(uint256 length, bool isName) public {
        length = bound(length, 0, 200);
        string memory word = _word(length, "x");
        if (length == 0 || length > 64) {
            vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_WrongLength.selector, length, 64));
        }
        if (isName) _models.release(word, "1", _FIRST);
        else _models.release("x", word, _FIRST);
    }

    /// hardhat-config: default.fuzz.runs = 2000
    function testFuzz_WordsHaveLettersDigitsAndThreeMarksOnly(bytes1 letter, uint256 at) public {
        bytes memory alphabet = "abcdefghijklmnopqrstuvwxyz0123456789._-";
        bool known = false;
        for (uint256 i = 0; i < alphabet.length; ++i) known = known || alphabet[i] == letter;
        bytes memory word = "abcdefgh";
        at = bound(at, 0, word.length - 1);
        word[at] = letter;
        if (!known) {
            vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_WrongByte.selector, letter, at));
        }
        _models.point(string(word), "latest", _FIRST);
    }

    /* HELPERS */

    function _means(string memory label, bytes32 modelId, bool isFixed) private view {
        (bytes32 found, bool foundFixed) = _models.resolve(_NAME, label);
        assertEq(found, modelId);
        assertEq(foundFixed, isFixed);
    }

    function _notPublished(bytes32 modelId) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublished.selector, modelId);
    }

    function _word(uint256 length, bytes1 letter) private pure returns (string memory) {
        bytes memory word = new bytes(length);
        for (uint256 i = 0; i < length; ++i) word[i] = letter;
        return string(word);
    }
}
